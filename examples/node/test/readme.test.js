// What the README tells to type.
import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import readline from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Server } from './server.js';

const here = fileURLToPath(new URL('..', import.meta.url));
const { scripts } = JSON.parse(await readFile(`${here}/package.json`, 'utf8'));
const readme = await readFile(`${here}/README.md`, 'utf8');
let server;
let url;

before(async () => {
	server = await Server.start('ai_chat_run.runner_grace = 10ms');
	url = `socket://chat_app@${server.dir}?db=postgres`;
});

after(() => server?.remove());

// The block in which this stands, with our server for the one at home, and what npm would run.
function block(kind, text) {
	const found = [...readme.matchAll(/^```(\w+)\n(.*?)^```$/gms)].filter(([, its, body]) => its === kind && body.includes(text));
	assert.equal(found.length, 1, `a ${kind} block with ${text}`);
	return found[0][2].replaceAll(/npm (?:run )?(start|demo)/g, (_all, name) => scripts[name])
		.replaceAll('postgres://chat_app@localhost/postgres', `'${url}'`);
}

const env = () => ({ ...process.env, PGHOST: server.dir, PGPORT: '5432', PGUSER: 'postgres', WORD_MS: '10', NO_COLOR: '1' });
const shell = (script) => promisify(execFile)('bash', ['-euc', script], { cwd: here, env: env() });

test('the demo on a server that is there', async () => {
	const { stdout } = await shell(block('sh', 'chat/setup.sql'));
	assert.match(stdout, /== done\n$/);
});

test('a server and curl', { skip: spawnSync('curl', ['--version']).status !== 0 && 'curl is not installed' }, async () => {
	const start = block('sh', 'RUNNER=web-1').replace('PORT=8001', 'PORT=0 exec env').trim();
	const child = spawn('bash', ['-euc', start], { cwd: here, env: env(), stdio: ['ignore', 'pipe', 'inherit'] });
	try {
		const [line] = await once(readline.createInterface({ input: child.stdout }), 'line');
		const address = / listens on (http:.*)/.exec(line)[1];
		// To read a stream for two seconds is no error here.
		const script = block('sh', 'CHAT=').replace('http://127.0.0.1:8001', address).replace('-m 2 $CHAT/stream', '$& || test $? = 28');
		const { stdout } = await shell(script);
		const lines = stdout.split('\n').filter(Boolean);
		const { runId } = JSON.parse(lines[0]);
		assert.match(stdout, /^event: text\ndata: "1 /m);
		assert.deepEqual(JSON.parse(lines.at(-2)), { runId });
		assert.equal(JSON.parse(lines.at(-1)).id, runId);
	} finally {
		const gone = once(child, 'exit');
		child.kill();
		await gone;
	}
});

test('the example in JavaScript', async () => {
	const source = block('js', 'new AiChatRuns')
		.replace('process.env.RUNNER', '"web-1"')
		.replace('new pg.Pool()', `new pg.Pool(${JSON.stringify(server.options())})`);
	const workspaceId = '00000000-0000-7000-8000-00000000aaaa';
	const child = spawn(process.execPath, ['--input-type=module', '-e', `${source}
		async function* askTheModel() { yield { number: 1 }; yield { number: 2 }; }
		await turn('${workspaceId}', '${workspaceId}', null);
		process.kill(process.pid, 'SIGTERM');`], { cwd: here, stdio: 'inherit' });
	assert.deepEqual(await once(child, 'exit'), [0, null]);
	assert.equal(await server.admin(`SELECT status || ' ' || step_count
		FROM ai_chat_run.get_latest_for_chat('${workspaceId}', '${workspaceId}')`), 'succeeded 2');
});
