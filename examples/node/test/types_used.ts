// What a TypeScript application writes; compiled by types.test.js, never run.
import { AiChatRuns, RunAlreadyActiveError, RunStoppedError } from '../lib/index.js';
import type { AiChatRun, PgPool, RunHandle, TurnStatus } from '../lib/index.js';

export async function turn(pool: PgPool, chatId: string, workspaceId: string): Promise<AiChatRun | undefined> {
	const runs = new AiChatRuns({ pool, runner: 'web-1', logger: console, heartbeatInterval: 1000 });
	let handle: RunHandle;
	try {
		handle = await runs.beginRun({ chatId, workspaceId, userId: null });
	} catch (error) {
		if (error instanceof RunAlreadyActiveError)
			return runs.getRun(error.activeRunId ?? '', workspaceId);
		throw error;
	}
	const stopped: boolean = handle.signal.reason instanceof RunStoppedError && handle.signal.reason.why === 'stop';
	const status: TurnStatus = stopped ? 'aborted' : 'completed';
	if (await runs.recordStep(handle.runId, workspaceId, 1) === 'stop')
		await runs.finalizeRun(handle.runId, workspaceId, status, undefined, { timeout: 1000 });
	const next = await runs.supersedeRun({ chatId, workspaceId, targetRunId: handle.runId });
	if (next.outcome === 'superseded')
		next.signal.throwIfAborted();
	// @ts-expect-error: no turn status
	await runs.finalizeRun(handle.runId, workspaceId, 'done');
	// @ts-expect-error: a name is needed
	void new AiChatRuns({ pool });
	// @ts-expect-error: null when the time is over
	(await runs.awaitSettled(handle.runId, workspaceId)).status;
	await runs.close();
	return runs.getLatestForChat(chatId, workspaceId);
}
