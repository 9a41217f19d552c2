// A chat server as a process of its own, for the demo and the tests.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';

export class ChatProcess {
	static async start(runner, env) {
		const chat = new ChatProcess();
		chat.child = spawn(process.execPath, [fileURLToPath(new URL('server.js', import.meta.url))], {
			env: { ...process.env, PORT: '0', RUNNER: runner, ...env }, stdio: ['ignore', 'pipe', 'inherit'] });
		const lines = readline.createInterface({ input: chat.child.stdout });
		const [line] = await Promise.race([once(lines, 'line'), once(chat.child, 'exit').then(() => [''])]);
		chat.url = / listens on (.*)/.exec(line)?.[1];
		if (!chat.url)
			throw new Error(`${runner} does not start`);
		return chat;
	}

	async call(method, path, body) {
		const response = await fetch(`${this.url}/chats/${path}`, { method, body: body && JSON.stringify(body) });
		return { status: response.status, ...await response.json() };
	}

	say(chatId, text) {
		return this.call('POST', `${chatId}/messages`, { text });
	}

	/** The events of the chat's stream, each { event, data }. */
	async* stream(chatId, signal) {
		const response = await fetch(`${this.url}/chats/${chatId}/stream`, { signal });
		let text = '';
		for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
			const events = (text + chunk).split('\n\n');
			text = events.pop();
			for (const one of events) {
				const [, event, data] = /^event: (.*)\ndata: (.*)$/.exec(one);
				yield { event, data: JSON.parse(data) };
			}
		}
	}

	/** Resolves with its exit code and signal. */
	async end(signal = 'SIGTERM') {
		if (this.child.exitCode === null && this.child.signalCode === null) {
			const gone = once(this.child, 'exit');
			this.child.kill(signal);
			await gone;
		}
		return [this.child.exitCode, this.child.signalCode];
	}
}
