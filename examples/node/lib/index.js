export { AiChatRuns } from './ai_chat_runs.js';
export { ClosedError, RunAlreadyActiveError, RunNotFinalizedError, RunnerNotReadyError, RunStoppedError } from './errors.js';
export { TimeoutError } from './failures.js';
