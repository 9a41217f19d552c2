// Chats in which a run of ours may have begun that nobody here executes: its begin was given up when the connection was
// lost, and the statement may be carried out yet, say after a lock that it waits for. Such a run would hold the chat's slot
// for as long as this process lives. So the chat is looked at for a while, and the run ended.
import { now } from './pauses.js';
import { sameId } from './local_runs.js';

const DOUBT_TIME = 600_000;

export class Doubts {
	#database;
	#runner;
	#runs;
	#logger;
	#chats = new Map();

	constructor({ database, runner, runs, logger }) {
		this.#database = database;
		this.#runner = runner;
		this.#runs = runs;
		this.#logger = logger;
	}

	add(chatId, workspaceId) {
		this.#chats.set(sameId(chatId), { workspaceId, until: now() + DOUBT_TIME });
	}

	/** Looks at each; tells whether there are some left. `isBusy` says of which chats not to judge just now. */
	async look(isBusy) {
		for (const [chatId, { workspaceId, until }] of this.#chats) {
			if (isBusy(chatId))
				continue;
			const { rows } = await this.#database.once('SELECT id, runner FROM ai_chat_run.get_active_for_chat($1, $2)',
				[chatId, workspaceId]);
			if (isBusy(chatId))
				continue;
			if (rows.length > 0 && rows[0].runner === this.#runner && !this.#runs.get(rows[0].id)) {
				this.#logger.warn(`run ${rows[0].id} (chat ${chatId}) was begun after all, and nobody waits for it: aborting it`);
				await this.#database.once('SELECT ai_chat_run.finalize_run($1, $2, $3, $4)',
					[rows[0].id, workspaceId, 'aborted', 'The begin of this run was given up.']);
				this.#chats.delete(chatId);
			} else if (now() > until) {
				this.#chats.delete(chatId);
			}
		}
		return this.#chats.size > 0;
	}
}
