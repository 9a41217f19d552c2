// A turn of the assistant: a run from its begin to its end. Nothing of it depends on the request that asked for it.
import { fakeModel } from './fake_model.js';

export class Turns {
	#pool;
	#runs;
	#wordMs;

	constructor({ pool, runs, wordMs }) {
		this.#pool = pool;
		this.#runs = runs;
		this.#wordMs = wordMs;
	}

	/** Resolves when the turn has begun; it goes on by itself. Throws RunAlreadyActiveError before anything is done. */
	async start({ chatId, workspaceId, userId, text }) {
		const { runId, signal } = await this.#runs.beginRun({ chatId, workspaceId, userId });
		this.#execute({ runId, signal, chatId, workspaceId, text })
			.catch((error) => console.error(`turn of run ${runId}: ${error.message}`));
		return runId;
	}

	/** However the turn ends, the run's end is written: it is what frees the chat. */
	async #execute({ runId, signal, chatId, workspaceId, text }) {
		try {
			await this.#addMessage(chatId, workspaceId, 'user', text);
			const messageId = await this.#addMessage(chatId, workspaceId, 'assistant', '');
			await this.#runs.linkAssistantMessage(runId, workspaceId, messageId);
			let content = '';
			let steps = 0;
			for await (const word of fakeModel(text, { signal, wordMs: this.#wordMs })) {
				content += word;
				await this.#pool.query('UPDATE chat.messages SET content = $2 WHERE id = $1', [messageId, content]);
				await this.#runs.recordStep(runId, workspaceId, ++steps);
			}
			await this.#runs.finalizeRun(runId, workspaceId, 'completed');
		} catch (error) {
			const stopped = signal.aborted && error === signal.reason;
			await this.#runs.finalizeRun(runId, workspaceId, stopped ? 'aborted' : 'error', error);
		}
	}

	async #addMessage(chatId, workspaceId, role, content) {
		const { rows } = await this.#pool.query(
			'INSERT INTO chat.messages (chat_id, workspace_id, role, content) VALUES ($1, $2, $3, $4) RETURNING id',
			[chatId, workspaceId, role, content]);
		return rows[0].id;
	}
}
