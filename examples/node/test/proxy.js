// A proxy in front of a server's socket, for the network to fail at the moment that a test needs: before a statement
// arrives, after it was carried out and before its answer is back, or for all.
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export class Proxy {
	#target;
	#pairs = new Set();
	#rules = [];
	refuses = false;

	static async start(server) {
		const proxy = new Proxy();
		proxy.#target = join(server.dir, '.s.PGSQL.5432');
		proxy.dir = await mkdtemp(join(tmpdir(), 'prox-'));
		proxy.listener = net.createServer((socket) => proxy.#accept(socket));
		await new Promise((resolve) => {
			proxy.listener.listen(join(proxy.dir, '.s.PGSQL.5432'), resolve);
		});
		return proxy;
	}

	/** Once: the statement that contains this text is carried out, and its answer lost with the connection. */
	loseAnswer(text) {
		return this.#rule(text, 'lose');
	}

	/** Once: the statement that contains this text, and all that follows in its session, goes nowhere; nobody hangs up. */
	swallow(text) {
		return this.#rule(text, 'swallow');
	}

	/** Once: the statement that contains this text arrives, its client is hung up on, and the server does not notice. */
	strand(text) {
		return this.#rule(text, 'strand');
	}

	/** Once: the statement that contains this text is held back. Resolves with a function that lets it go on. */
	hold(text) {
		return this.#rule(text, 'hold');
	}

	/** Resolves when it has happened. */
	#rule(text, what) {
		return new Promise((resolve) => {
			this.#rules.push({ text, what, resolve });
		});
	}

	/** Hangs up on everybody. */
	cut() {
		for (const { client, server } of this.#pairs) {
			client.destroy();
			server.destroy();
		}
	}

	async close() {
		this.cut();
		await new Promise((resolve) => {
			this.listener.close(resolve);
		});
		await rm(this.dir, { recursive: true, force: true });
	}

	#accept(client) {
		if (this.refuses) {
			client.destroy();
			return;
		}
		const server = net.connect(this.#target);
		const pair = { client, server };
		let rule;
		let held;
		this.#pairs.add(pair);
		client.on('data', (data) => {
			const text = data.toString('latin1');
			const index = rule ? -1 : this.#rules.findIndex((one) => text.includes(one.text));
			if (index >= 0)
				[rule] = this.#rules.splice(index, 1);
			if (rule?.what === 'swallow')
				rule.resolve();
			else if (rule?.what === 'hold' && index >= 0)
				held = [data];
			else if (held)
				held.push(data);
			else
				server.write(data);
			if (rule?.what === 'hold' && index >= 0) {
				rule.resolve(() => {
					held.splice(0).forEach((piece) => server.write(piece));
					held = undefined;
				});
			}
			// It ends with the message Sync: all of it is there.
			if (rule?.what === 'strand' && data.at(-5) === 0x53) {
				client.destroy();
				rule.resolve();
			}
		});
		server.on('data', (data) => {
			if (rule?.what !== 'lose') {
				client.write(data);
				return;
			}
			// The server is ready for the next one: this one is committed.
			if (data.at(-6) === 0x5a) {
				client.destroy();
				rule.resolve();
			}
		});
		for (const [from, to] of [[client, server], [server, client]]) {
			from.on('error', () => {});
			from.on('close', () => {
				if (rule?.what === 'strand' && from === client)
					return;
				to.destroy();
				this.#pairs.delete(pair);
			});
		}
	}
}
