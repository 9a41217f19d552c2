// The types say what there is: the same names, and an application's use of them compiles.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as library from '../lib/index.js';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

test('the types name what is exported, and the methods of the class', async () => {
	const types = await readFile(path('../lib/index.d.ts'), 'utf8');
	const classes = [...types.matchAll(/^export class (\w+)/gm)].map(([, name]) => name);
	assert.deepEqual(classes.sort(), Object.keys(library).sort());

	const body = /^export class AiChatRuns \{\n(.*?)^\}/ms.exec(types)[1];
	const members = [...body.matchAll(/^\t(?:readonly )?(\w+)[(:]/gm)].map(([, name]) => name);
	assert.deepEqual(members.sort(), Object.getOwnPropertyNames(library.AiChatRuns.prototype).sort());
});

// TypeScript's compiler, of the project or of the system.
const tsc = ['../node_modules/.bin/tsc', 'tsc'].map((name) => (name.startsWith('.') ? path(name) : name))
	.find((name) => spawnSync(name, ['--version']).status === 0);

test('a TypeScript application compiles', { skip: !tsc && 'TypeScript is not installed' }, () => {
	const { status, stdout } = spawnSync(tsc, ['--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext',
		'--moduleResolution', 'nodenext', '--lib', 'es2022,dom', '--typeRoots', path('none'), path('types_used.ts')], { encoding: 'utf8' });
	assert.equal(status, 0, stdout);
});
