import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  BusyError,
  EepoError,
  InvalidArgumentError,
  NativeError,
  OutOfMemoryError,
  UnsupportedError,
} from '../lib/errors.js';
import { callNative, loadNative } from '../lib/native.js';

type Raise = (kind: string, asynchronous: boolean) => Promise<void>;

const cases: [string, new (...args: never[]) => EepoError, string, RegExp][] = [
  ['eepo', BusyError, 'EEPO_BUSY', /^on purpose$/],
  ['c10', NativeError, 'EEPO_NATIVE', /^on purpose/],
  ['c10 index', InvalidArgumentError, 'EEPO_INVALID_ARGUMENT', /^on purpose/],
  ['c10 value', InvalidArgumentError, 'EEPO_INVALID_ARGUMENT', /^on purpose/],
  ['c10 type', InvalidArgumentError, 'EEPO_INVALID_ARGUMENT', /^on purpose/],
  ['c10 not implemented', UnsupportedError, 'EEPO_UNSUPPORTED', /^on purpose/],
  ['c10 memory', OutOfMemoryError, 'EEPO_OUT_OF_MEMORY', /^on purpose/],
  ['memory', OutOfMemoryError, 'EEPO_OUT_OF_MEMORY', /Memory ran out/],
  ['std', NativeError, 'EEPO_NATIVE', /^on purpose$/],
  ['something else', NativeError, 'EEPO_NATIVE', /unknown native exception/],
];

describe('C++ exceptions become EepoErrors and never end the process', () => {
  for (const [kind, Class, code, message] of cases) {
    for (const asynchronous of [false, true]) {
      test(`${kind}, ${asynchronous ? 'in a job' : 'in the call'}`, async () => {
        const { raise } = loadNative() as unknown as { raise: Raise };
        await assert.rejects(
          async () => callNative(() => raise(kind, asynchronous)),
          (error: EepoError) => {
            assert.ok(error instanceof Class && error instanceof EepoError);
            assert.equal(error.code, code);
            assert.match(error.message, message);
            // libtorch's backtrace is a field of its own and not part of the message.
            assert.doesNotMatch(error.message, /\n|frame #|native\/node/);
            if (kind.startsWith('c10')) assert.match(error.nativeBacktrace ?? '', /frame #0|errors\.cc/);
            return true;
          },
        );
      });
    }
  }
});
