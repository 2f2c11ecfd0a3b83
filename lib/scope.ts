import { AsyncLocalStorage } from 'node:async_hooks';

interface Disposable {
  dispose(): void;
}

class Scope {
  readonly members = new Set<Disposable>();
  open = true;
  constructor(readonly parent: Scope | undefined) {}
}

const current = new AsyncLocalStorage<Scope>();
const owners = new WeakMap<Disposable, Scope>();

/** The innermost scope that has not ended; work that outlives its scope belongs to the one around it. */
function innermost(): Scope | undefined {
  let scope = current.getStore();
  while (scope !== undefined && !scope.open) scope = scope.parent;
  return scope;
}

function move(member: Disposable, to: Scope | undefined): void {
  owners.get(member)?.members.delete(member);
  if (to === undefined) owners.delete(member);
  else {
    to.members.add(member);
    owners.set(member, to);
  }
}

/** Registers something new with the scope it was made in, if any. @internal */
export function track(member: Disposable): void {
  const scope = innermost();
  if (scope !== undefined) move(member, scope);
}

/** It was disposed by hand: its scope forgets it. @internal */
export function untrack(member: Disposable): void {
  move(member, undefined);
}

/** Hands every member of `scope` that `value` holds to the scope around it. */
function release(value: unknown, scope: Scope, seen: Set<object>): void {
  if (typeof value !== 'object' || value === null || seen.has(value)) return;
  seen.add(value);
  if (owners.get(value as Disposable) === scope) {
    let parent = scope.parent;
    while (parent !== undefined && !parent.open) parent = parent.parent;
    move(value as Disposable, parent);
  } else if (Array.isArray(value) || value instanceof Set) {
    for (const element of value) release(element, scope, seen);
  } else if (value instanceof Map) {
    for (const [key, element] of value) {
      release(key, scope, seen);
      release(element, scope, seen);
    }
  } else {
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) return;
    for (const element of Object.values(value)) release(element, scope, seen);
  }
}

/**
 * Runs `body` and disposes every tensor that was created in it, also after an `await` and when it throws. Tensors that
 * `body` returns survive: a Tensor, or arrays, Maps, Sets and plain objects of them; so do those given to {@link keep}.
 *
 * Scopes nest: what an inner scope returns belongs to the scope around it. Scopes that run at the same time do not mix,
 * because membership follows the asynchronous context and not the clock.
 *
 * @param body what to run; may be synchronous.
 * @returns what `body` returns.
 *
 * @example
 * const { logprob } = await scope(async () => {
 *   const logits = Tensor.from(scores, { shape: [tokens, vocab] });
 *   return tokenStats(logits, targets); // logits is freed, the three results are not
 * });
 */
export async function scope<T>(body: () => T | Promise<T>): Promise<T> {
  const own = new Scope(innermost());
  try {
    const result = await current.run(own, body);
    release(result, own, new Set());
    return result;
  } finally {
    own.open = false;
    for (const member of [...own.members]) member.dispose();
    own.members.clear();
  }
}

/**
 * Takes a tensor out of every scope: it lives until its own `dispose()`.
 *
 * @returns the same tensor.
 */
export function keep<T extends Disposable>(tensor: T): T {
  untrack(tensor);
  return tensor;
}
