// Which failures a second try can cure, and after which of them nobody knows whether the statement was carried out.

/** Our own: a connection, or an answer, did not come in time. */
export class TimeoutError extends Error {
	constructor(message, sent) {
		super(message);
		this.name = 'TimeoutError';
		this.sent = sent;
	}
}

// Classes of SQLSTATEs: connection, transaction rollback, resources, intervention, system. And single ones: a lock was
// not to be had in time, the server is read-only (a standby, before its promotion or after a switch to another one).
const TRANSIENT_CLASSES = new Set(['08', '40', '53', '57', '58']);
const TRANSIENT_CODES = new Set(['55P03', '25006']);

// The server ended the session: it may have carried out the statement before.
const SESSION_ENDED = new Set(['57P01', '57P02', '57P05', '25P04']);

// Errors of the socket that come before anything can be sent.
const NOT_SENT = new Set(['ECONNREFUSED', 'ENOENT', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH']);

export const isSqlState = (code) => typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code);

// Errors without a SQLSTATE are the driver's or the socket's: a connection that was lost, refused or too slow. A mistake
// in the program has the classes below.
const isMistake = (error) =>
	error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError;

export function isTransient(error) {
	if (isSqlState(error?.code) && !error.syscall)
		return TRANSIENT_CLASSES.has(error.code.slice(0, 2)) || TRANSIENT_CODES.has(error.code) ||
			SESSION_ENDED.has(error.code);
	return !isMistake(error) && error?.name !== 'AbortError' && error?.name !== 'ClosedError';
}

/** What a failure says. Node's of a name with several addresses, none of which answers, has its words in its parts. */
export function wordsOf(error) {
	return error.message || error.errors?.map(wordsOf).join(', ') || error.code || String(error);
}

/** Is it unknown whether the statement that failed so was carried out? */
export function isInDoubt(error) {
	if (error instanceof TimeoutError)
		return error.sent;
	if (isSqlState(error?.code) && !error.syscall)
		return SESSION_ENDED.has(error.code) || error.code.startsWith('08');
	return isTransient(error) && !NOT_SENT.has(error?.code);
}
