// A private server for tests: behind a socket in a directory of its own, no TCP, gone with the test. The programs are those
// in PATH, or of pg_config; the extension has to be installed there.
import { execFile, spawnSync } from 'node:child_process';
import { appendFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';

const run = promisify(execFile);

// The bindir's are the server's own; /usr/bin has psql alone.
const bindir = spawnSync(process.env.PG_CONFIG || 'pg_config', ['--bindir'], { encoding: 'utf8' }).stdout?.trim();

export class Server {
	#pools = [];

	static async start(conf = '', { preload = true } = {}) {
		if (process.getuid?.() === 0)
			throw new Error('PostgreSQL\'s server does not run as root: run the tests as an ordinary user');
		const server = new Server();
		server.dir = await mkdtemp(join(tmpdir(), 'runs-'));
		server.data = join(server.dir, 'data');
		await run(join(bindir, 'initdb'), ['-D', server.data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync']);
		await server.configure(`
			listen_addresses = ''
			unix_socket_directories = '${server.dir}'
			fsync = off
			shared_preload_libraries = '${preload ? 'ai_chat_run' : ''}'
			ai_chat_run.lock_timeout = 100ms
			ai_chat_run.finalize_retry_base = 1ms
			${conf}
			${process.env.EXTRA_CONF ?? ''}`);
		await server.restart();
		await server.admin('CREATE EXTENSION ai_chat_run; CREATE ROLE chat_app LOGIN; SELECT ai_chat_run.grant_app_access(\'chat_app\')');
		return server;
	}

	configure(conf) {
		return appendFile(join(this.data, 'postgresql.conf'), `${conf}\n`);
	}

	/** Stops it, as told, and starts it again. */
	async restart(mode = 'fast') {
		await this.stop(mode);
		await this.#control('start', '-l', join(this.dir, 'log'));
	}

	async stop(mode = 'fast') {
		await this.#control('stop', '-m', mode).catch(() => {});
	}

	#control(...args) {
		return run(join(bindir, 'pg_ctl'), ['-D', this.data, '-w', '-t', '120', ...args]);
	}

	log() {
		return readFile(join(this.dir, 'log'), 'utf8');
	}

	options(more) {
		return { host: this.dir, port: 5432, user: 'chat_app', database: 'postgres', ...more };
	}

	/** A pool of the application's. */
	pool(options) {
		const pool = new pg.Pool(this.options(options));
		this.#pools.push(pool);
		return pool;
	}

	/** The first column of the first row of what a superuser asks, on a connection of its own. */
	async admin(sql, values) {
		const client = new pg.Client(this.options({ user: 'postgres' }));
		client.on('error', () => {});
		await client.connect();
		try {
			const result = await client.query(sql, values);
			const row = [result].flat().at(-1).rows[0];
			return row && Object.values(row)[0];
		} finally {
			await client.end();
		}
	}

	async remove() {
		await Promise.all(this.#pools.map((pool) => pool.end().catch(() => {})));
		await this.stop('immediate');
		await rm(this.dir, { recursive: true, force: true });
	}
}

/** Polls until the condition holds, and returns what it gave. */
export async function until(condition, what = condition) {
	for (const deadline = Date.now() + 120_000; ;) {
		const result = await condition();
		if (result)
			return result;
		if (Date.now() > deadline)
			throw new Error(`gave up waiting for: ${what}`);
		await new Promise((resolve) => {
			setTimeout(resolve, 10);
		});
	}
}

/** Resolves with the reason when the signal is aborted. */
export async function aborted(signal) {
	await until(() => signal.aborted, 'the signal to be aborted');
	return signal.reason;
}

/** A logger that remembers. */
export function memory() {
	const lines = [];
	const add = (message) => lines.push(message);
	return { lines, debug: add, info: add, warn: add, error: add };
}
