/** mathjs, loaded when the first comparison needs more than doubles: complex numbers and decimals of any length. */
import { createRequire } from 'node:module';
import type { BigNumber, Complex } from 'mathjs';

/** The complex number of mathjs, with the methods of its class. */
export type ComplexNumber = Complex;
/** The decimal of mathjs. */
export type Decimal = BigNumber;

interface Library {
  Complex: new (re: number, im: number) => Complex;
  Decimal: (new (value: string | number) => Decimal) & { acos(x: Decimal): Decimal };
  pi: Decimal;
  e: Decimal;
}

/** Significant digits of the decimals. */
const DIGITS = 64;

let library: Library | undefined;

/** mathjs as one file, which loads twenty times faster than its package of modules. */
const BUNDLE = 'mathjs/lib/browser/math.js';

/** The number classes of mathjs. */
export function numbers(): Library {
  if (library !== undefined) return library;
  const math = createRequire(import.meta.url)(BUNDLE) as {
    BigNumber: Library['Decimal'] & { clone(config: { precision: number }): Library['Decimal'] };
    Complex: Library['Complex'];
  };
  const Decimal = math.BigNumber.clone({ precision: DIGITS });
  library = { Complex: math.Complex, Decimal, pi: Decimal.acos(new Decimal(-1)), e: new Decimal(1).exp() as Decimal };
  return library;
}
