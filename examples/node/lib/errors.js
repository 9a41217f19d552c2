// What can happen to a run, as errors that callers tell apart.

/** The chat has an active run: answer 409, before any call to the model. */
export class RunAlreadyActiveError extends Error {
	constructor(chatId, activeRunId, options) {
		super(`an agent run is already in progress for chat ${chatId}`, options);
		this.name = 'RunAlreadyActiveError';
		this.code = 'RN409';
		this.chatId = chatId;
		this.activeRunId = activeRunId ?? undefined;
	}
}

const WHY = {
	stop: 'a stop of the run was requested',
	finalized: 'somebody else has ended the run',
	not_found: 'the run is not there any more',
	closed: 'the process is about to end',
};

/** The reason of a run's AbortSignal. Its name is AbortError, as fetch and its like expect; `why` tells the rest. */
export class RunStoppedError extends Error {
	constructor(runId, why) {
		super(`run ${runId}: ${WHY[why]}`);
		this.name = 'AbortError';
		this.runId = runId;
		this.why = why;
	}
}

/** The end of the run is decided and not written yet. It will be, by this process or, when that is gone, as aborted. */
export class RunNotFinalizedError extends Error {
	constructor(runId, options) {
		super(`the end of run ${runId} is not written yet`, options);
		this.name = 'RunNotFinalizedError';
		this.runId = runId;
	}
}

/** No run can begin now: this process could not tell the server its name. The cause tells why. */
export class RunnerNotReadyError extends Error {
	constructor(runner, options) {
		const taken = options?.cause?.code === '55006' ? ': another process has that name' : '';
		super(`runner "${runner}" is not attached${taken}`, options);
		this.name = 'RunnerNotReadyError';
		this.runner = runner;
	}
}

/** close() was called. */
export class ClosedError extends Error {
	constructor() {
		super('this AiChatRuns is closed');
		this.name = 'ClosedError';
	}
}
