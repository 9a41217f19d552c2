/**
 * A pool of the package "pg": what is needed of it, for these types to need no others.
 */
export interface PgPool {
	connect(callback: (...args: any[]) => void): unknown;
	on(event: 'error', listener: (...args: any[]) => void): unknown;
	readonly options?: object;
}

export interface Logger {
	debug?(message: string): void;
	info?(message: string): void;
	warn?(message: string): void;
	error?(message: string): void;
}

export interface AiChatRunsOptions {
	/** The application's pool. It stays the application's, which ends it after close(). */
	pool: PgPool;
	/** The name of this process, 1 to 127 bytes: no two live ones have the same. */
	runner: string;
	/**
	 * How the connections that wait are made, where the pool's end at a pooler: a connection string, or options of the
	 * driver's Client. As the pool's, unless given.
	 */
	direct?: string | object;
	/**
	 * Bind the name to the waiting session, so that the server knows when the process is gone. Unless given: yes, but not
	 * through a pooler. True is right for a session-pooling one that says DISCARD ALL.
	 */
	attach?: boolean;
	/** One life of this process: a uuid, by default a new one. */
	incarnation?: string;
	/** Milliseconds between two heartbeats, 5000 by default. */
	heartbeatInterval?: number;
	/** Milliseconds that a begin, a stop or a look may take, repeated while the server is away; 10000 by default. */
	patience?: number;
	/** For how many milliseconds a single try waits for a connection and its answer; 15000 by default. */
	tryTime?: number;
	/** The console, unless given. */
	logger?: Logger;
}

export type TurnStatus = 'completed' | 'error' | 'aborted';
export type TerminalStatus = 'succeeded' | 'failed' | 'aborted';
export type RunStatus = 'pending' | 'running' | TerminalStatus;
/** What the server answers to a step: stop and finalized have fired the run's signal, if it is executed here. */
export type RunnerSignal = 'continue' | 'stop' | 'finalized' | 'not_found';
export type FinalizeOutcome = 'finalized' | 'already_finalized' | 'deferred' | 'not_found';
export type StopReason = 'stop' | 'finalized' | 'not_found' | 'closed';
/** starting: not used yet. waiting: not attached. listening, deaf: not preloaded. lost: connecting again. */
export type ConnectionState = 'starting' | 'attached' | 'waiting' | 'listening' | 'deaf' | 'lost' | 'closed';

export interface AiChatRun {
	id: string;
	chatId: string;
	workspaceId: string;
	createdBy: string | null;
	assistantMessageId: string | null;
	trigger: string;
	status: RunStatus;
	error: string | null;
	stepCount: number;
	runner: string | null;
	stopRequestedAt: Date | null;
	startedAt: Date | null;
	finishedAt: Date | null;
	createdAt: Date;
	updatedAt: Date;
}

export interface RunHandle {
	runId: string;
	/** Aborted when the turn shall end; its reason is a RunStoppedError. A client that hangs up does not abort it. */
	signal: AbortSignal;
}

export interface BeginRunArgs {
	chatId: string;
	workspaceId: string;
	userId?: string | null;
	/** 'user', unless given. */
	trigger?: string;
}

export interface SupersedeRunArgs extends BeginRunArgs {
	targetRunId: string;
	/** Milliseconds that the target has to end; 10000 by default. */
	timeout?: number;
	/** Abort the target when the time is over. */
	force?: boolean;
}

export type SupersedeResult =
	| ({ outcome: 'superseded' | 'began' } & RunHandle)
	/** runId: the run that is active instead, or still. */
	| { outcome: 'mismatch' | 'timeout'; runId?: string; signal?: undefined };

export interface Settled {
	status: TerminalStatus | 'not_found';
	error: string | null;
}

export class AiChatRuns {
	constructor(options: AiChatRunsOptions);
	readonly runner: string;
	readonly state: ConnectionState;
	start(): Promise<void>;
	beginRun(args: BeginRunArgs): Promise<RunHandle>;
	supersedeRun(args: SupersedeRunArgs): Promise<SupersedeResult>;
	/** Best effort: null if it could not be written. */
	linkAssistantMessage(runId: string, workspaceId: string, assistantMessageId: string): Promise<boolean | null>;
	/** Best effort: null if it could not be written. */
	recordStep(runId: string, workspaceId: string, stepCount: number): Promise<RunnerSignal | null>;
	/** Repeats until it is answered, unless `timeout` (milliseconds) or `signal` end that. */
	finalizeRun(runId: string, workspaceId: string, turnStatus: TurnStatus, error?: unknown,
		options?: { timeout?: number; signal?: AbortSignal }): Promise<FinalizeOutcome>;
	requestStop(runId: string, workspaceId: string): Promise<boolean>;
	requestStopForChat(chatId: string, workspaceId: string): Promise<string | undefined>;
	getLatestForChat(chatId: string, workspaceId: string): Promise<AiChatRun | undefined>;
	getRun(runId: string, workspaceId: string): Promise<AiChatRun | undefined>;
	getActiveForChat(chatId: string, workspaceId: string): Promise<AiChatRun | undefined>;
	isLocallyActive(runId: string): boolean;
	/** Null when the time (milliseconds, 30000 by default) is over. */
	awaitSettled(runId: string, workspaceId: string, options?: { timeout?: number }): Promise<Settled | null>;
	/** Fires the signals of all runs, gives their turns that time to end (milliseconds, 5000 by default), aborts the rest. */
	close(options?: { timeout?: number }): Promise<void>;
}

export class RunAlreadyActiveError extends Error {
	constructor(chatId: string, activeRunId?: string | null, options?: { cause?: unknown });
	readonly code: 'RN409';
	readonly chatId: string;
	readonly activeRunId: string | undefined;
}

export class RunStoppedError extends Error {
	constructor(runId: string, why: StopReason);
	readonly name: 'AbortError';
	readonly runId: string;
	readonly why: StopReason;
}

export class RunNotFinalizedError extends Error {
	constructor(runId: string, options?: { cause?: unknown });
	readonly runId: string;
}

export class RunnerNotReadyError extends Error {
	constructor(runner: string, options?: { cause?: unknown });
	readonly runner: string;
}

/** A connection, or an answer, did not come in time. */
export class TimeoutError extends Error {}

export class ClosedError extends Error {}
