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
export const DIGITS = 64;

let library: Library | undefined;

/** Only the numbers: `mathjs` as a whole is asked for two classes, and knows nothing of our expressions. */
export function numbers(): Library {
  if (library !== undefined) return library;
  const mathjs = createRequire(import.meta.url)('mathjs') as typeof import('mathjs');
  const { create, BigNumberDependencies, ComplexDependencies } = mathjs as unknown as {
    create(factories: object, config: object): Record<string, unknown>;
    BigNumberDependencies: object;
    ComplexDependencies: object;
  };
  const math = create({ BigNumberDependencies, ComplexDependencies }, { precision: DIGITS });
  const Big = math.BigNumber as Library['Decimal'];
  library = {
    Complex: math.Complex as Library['Complex'],
    Decimal: Big,
    pi: Big.acos(new Big(-1)),
    e: new Big(1).exp() as Decimal,
  };
  return library;
}
