/**
 * Every error this package throws on purpose is an {@link EepoError} with a stable `code`. The message names the
 * argument, file or line and says what to do.
 */
export class EepoError extends Error {
  /** Stable, machine-readable: `EEPO_...`. */
  readonly code: string;
  /** The native backtrace, where the failure came from libtorch. */
  declare readonly nativeBacktrace?: string;

  constructor(code: string, message: string, options?: ErrorOptions & { nativeBacktrace?: string }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
    if (options?.nativeBacktrace !== undefined) this.nativeBacktrace = options.nativeBacktrace;
  }
}

/** A value, shape or dtype that the caller passed is wrong. */
export class InvalidArgumentError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_INVALID_ARGUMENT', message, options);
  }
}

/** A configuration file or override is wrong; the message names every key. */
export class ConfigError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_CONFIG', message, options);
  }
}

/** A tensor or policy was used after `dispose()`. */
export class DisposedError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_DISPOSED', message, options);
  }
}

/** A model, config, tokenizer, weights or data file is missing or broken. */
export class InvalidFileError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_INVALID_FILE', message, options);
  }
}

/** An architecture, dtype, device or option that this build does not have. */
export class UnsupportedError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_UNSUPPORTED', message, options);
  }
}

/** An allocation failed; the message says how much was asked for. */
export class OutOfMemoryError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_OUT_OF_MEMORY', message, options);
  }
}

/** An `AbortSignal` fired. `name` is `AbortError`, as on the web platform. */
export class AbortedError extends EepoError {
  constructor(message = 'The operation was aborted', options?: ErrorOptions) {
    super('EEPO_ABORTED', message, options);
    this.name = 'AbortError';
  }
}

/** NaN or Inf where a number was needed. */
export class NonFiniteError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_NON_FINITE', message, options);
  }
}

/** Two operations on one object that must not overlap. */
export class BusyError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_BUSY', message, options);
  }
}

/** libtorch or the addon could not be found or loaded; the message lists what was tried and the fixes. */
export class LoadError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_LOAD', message, options);
  }
}

/** The Hugging Face hub refused, could not be reached, or sent something broken; `status` is its HTTP status, if any. */
export class HubError extends EepoError {
  declare readonly status?: number;

  constructor(message: string, options?: ErrorOptions & { status?: number }) {
    super('EEPO_HUB', message, options);
    if (options?.status !== undefined) this.status = options.status;
  }
}

/** A checkpoint could not be saved; the message names the last one that is whole. */
export class CheckpointError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_CHECKPOINT', message, options);
  }
}

/** A reward function threw, took too long, or returned the wrong number or kind of values. `cause`: what it threw. */
export class RewardError extends EepoError {
  /** The reward's name, where it has one. */
  declare readonly reward?: string;
  /** Index of the response in the batch, and the id of its problem, where one response is to blame. */
  declare readonly sample?: number;
  declare readonly problem?: string;

  constructor(message: string, options?: ErrorOptions & { reward?: string; sample?: number; problem?: string }) {
    super('EEPO_REWARD', message, options);
    if (options?.reward !== undefined) this.reward = options.reward;
    if (options?.sample !== undefined) this.sample = options.sample;
    if (options?.problem !== undefined) this.problem = options.problem;
  }
}

/** The verifier cannot work: its processes cannot be started, or it failed its own check. */
export class VerifierError extends EepoError {
  constructor(message: string, options?: ErrorOptions) {
    super('EEPO_VERIFIER', message, options);
  }
}

/** Anything else that went wrong below the N-API edge. */
export class NativeError extends EepoError {
  constructor(message: string, options?: ErrorOptions & { nativeBacktrace?: string }) {
    super('EEPO_NATIVE', message, options);
  }
}
