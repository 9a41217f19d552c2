// A model that answers slowly, word by word, and stops when it is told to: as a real one's client does with an AbortSignal.
import { setTimeout as pause } from 'node:timers/promises';

/** Yields the words of an answer. Throws the signal's reason, as an AbortError, when it is aborted. */
export async function* fakeModel(question, { signal, wordMs = 100 }) {
	const words = `You said "${question}". Let me think about that for a while.`.split(' ');
	if (/^count/.test(question))
		words.splice(0, words.length, ...Array.from({ length: 1000 }, (_, i) => String(i + 1)));
	if (/fail/.test(question))
		throw new Error('the model is overloaded');
	for (const word of words) {
		await pause(wordMs, undefined, { signal }).catch(() => {});
		signal.throwIfAborted();
		yield `${word} `;
	}
}
