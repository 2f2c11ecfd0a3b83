/** Units: what a number measures or counts. */
import type { Unit } from './latex/ast.js';
import { multiplyRationals, ONE, type Rational } from './rational.js';
import { table } from './table.js';

interface UnitInfo {
  /** What it measures, as powers of dimensions; units of the same powers convert into each other. */
  powers: [dimension: string, power: number][];
  /** In the dimensions' base units. */
  factor: Rational;
}

const TABLE = new Map<string, UnitInfo>();

function define(dimension: string, numerator: number, denominator: number, names: string): void {
  const factor = { numerator: BigInt(numerator), denominator: BigInt(denominator) };
  const powers = dimension.split(' ').map((part): [string, number] => {
    const [name, power = '1'] = part.split('^') as [string, string?];
    return [name, Number(power)];
  });
  for (const name of names.split(' ')) TABLE.set(name, { powers, factor });
}

define('length', 1, 1, 'm meter meters metre metres');
define('length', 1, 100, 'cm cms centimeter centimeters centimetre centimetres');
define('length', 1, 1000, 'mm millimeter millimeters millimetre millimetres');
define('length', 1000, 1, 'km kms kilometer kilometers kilometre kilometres');
define('length', 254, 10000, 'in inch inches');
define('length', 3048, 10000, 'ft foot feet');
define('length', 9144, 10000, 'yd yds yard yards');
define('length', 1609344, 1000, 'mi mile miles');
define('mass', 1, 1, 'g gm gms gram grams');
define('mass', 1000, 1, 'kg kgs kilogram kilograms kilo kilos');
define('mass', 1, 1000, 'mg milligram milligrams');
define('mass', 1000000, 1, 'tonne tonnes');
define('mass', 45359237, 100000, 'lb lbs pound pounds');
define('mass', 45359237, 1600000, 'oz ounce ounces');
define('time', 1, 1, 's sec secs second seconds');
define('time', 60, 1, 'min mins minute minutes');
define('time', 3600, 1, 'h hr hrs hour hours');
define('time', 86400, 1, 'd day days');
define('time', 604800, 1, 'week weeks wk wks');
define('month', 1, 1, 'month months');
define('month', 12, 1, 'year years yr yrs');
define('length^3', 1, 1000, 'l liter liters litre litres');
define('length^3', 1, 1000000, 'ml milliliter milliliters millilitre millilitres');
define('length^3', 3785411784, 10 ** 12, 'gal gallon gallons');
define('length^3', 3785411784, 4 * 10 ** 12, 'quart quarts qt');
define('length^3', 3785411784, 8 * 10 ** 12, 'pint pints pt');
define('length^3', 3785411784, 16 * 10 ** 12, 'cup cups');
define('length time^-1', 1609344, 3600000, 'mph');
define('length time^-1', 1000, 3600, 'kph kmh kmph');
define('money:dollar', 100, 1, 'dollar dollars usd bucks');
define('money:dollar', 1, 1, 'cent cents penny pennies');
define('money:dollar', 5, 1, 'nickel nickels');
define('money:dollar', 10, 1, 'dime dimes');
define('money:dollar', 25, 1, 'quarter quarters');
define('money:euro', 1, 1, 'euro euros eur');
define('money:pound', 1, 1, 'gbp sterling');
define('money:yen', 1, 1, 'yen yuan rmb');
define('money:rupee', 1, 1, 'rupee rupees rs inr');
define('angle', 1, 1, 'degree degrees deg degs');
define('angle:radian', 1, 1, 'radian radians rad rads');
define('temperature:c', 1, 1, 'c celsius');
define('temperature:f', 1, 1, 'fahrenheit');
define('frequency', 1, 1, 'hz hertz');
define('frequency', 1000, 1, 'khz');
define('force', 1, 1, 'n newton newtons');
define('energy', 1, 1, 'j joule joules');
define('energy', 1000, 1, 'kj');
define('power', 1, 1, 'w watt watts');
define('power', 1000, 1, 'kw kilowatt kilowatts');
define('current', 1, 1, 'amp amps ampere amperes');
define('voltage', 1, 1, 'v volt volts');
define('pressure', 1, 1, 'pa pascal pascals');
define('pressure', 101325, 1, 'atm');
define('resistance', 1, 1, 'ohm ohms');
define('substance', 1, 1, 'mol mols mole moles');
define('k kelvin', 1, 1, 'k kelvin');
define('length^2', 40468564224, 10 ** 7, 'acre acres');

/** Words that say nothing about what is measured. */
const EMPTY = new Set(
  'unit units u of the a an total about approximately approx exactly only each all altogether long wide high tall old away'.split(
    ' ',
  ),
);
/** Words that make another number of the one before them, or deny it. */
const CHANGING = new Set(
  'half halves third thirds fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth hundredths thousandth thousandths factorial below negative minus plus times divided over squared cubed is not wrong incorrect false or'.split(
    ' ',
  ),
);
/** Which way a number goes: `5 units left` is not `5 units right`. */
const SENSES = new Map(
  ['left', 'right', 'up', 'down', 'above', 'east', 'west', 'north', 'south', 'more', 'less', 'fewer less'].map(
    (words) => {
      const [word = '', meaning = word] = words.split(' ');
      return [word, meaning];
    },
  ),
);
const AREA = new Set('square sq squared'.split(' '));
const VOLUME = new Set('cubic cu cubed'.split(' '));
const IRREGULAR = table<string>({
  people: 'person',
  men: 'man',
  women: 'woman',
  children: 'child',
  dice: 'die',
  vertices: 'vertex',
  matrices: 'matrix',
});

/** Whether a run of letters (lower case, longer than one) names a unit. */
export const isUnitWord = (word: string): boolean =>
  word.length > 1 && (TABLE.has(word) || word === 'units' || word === 'unit' || AREA.has(word) || VOLUME.has(word));

/** Whether a word right after a number leaves no number with a unit: `2 thirds`, `5 squared`, `5 is wrong`. */
export const changesNumber = (word: string): boolean => CHANGING.has(word);

/** The unit a symbol of one letter can stand for after a number: `5 m`. */
export const isUnitLetter = (letter: string): boolean => letter.length === 1 && 'mgshLNJWV'.includes(letter);

export interface Measure {
  /** `length^2/time`, or the things counted, or '' for nothing said. */
  dimension: string;
  factor: Rational;
  /** A direction, or '' for none. */
  sense: string;
}

/** The dimension of units without a name. */
const UNNAMED = 'units';

/** Whether two units can measure the same thing: one says nothing, or they have one dimension. */
export function commensurable(x: Measure, y: Measure): boolean {
  const plain = ({ dimension }: Measure): string => dimension.replace(UNNAMED, 'length');
  if (x.sense !== '' && y.sense !== '' && x.sense !== y.sense) return false;
  return x.dimension === '' || y.dimension === '' || plain(x) === plain(y);
}

/** Whether a unit names what it measures: not just `units` or nothing. */
export const isNamed = ({ dimension }: Measure): boolean => dimension !== '' && !dimension.startsWith(UNNAMED);

/** What a unit measures, and how much of the dimension's base unit it is. */
export function measureOf(unit: Unit): Measure {
  const powers = new Map<string, number>();
  let factor: Rational = ONE;
  let pending = 0;
  let noun = '';
  let unnamed = 1;
  let sense = '';
  // Degrees Celsius measure no angle.
  const temperature = unit.parts.some(({ word }) => word === 'celsius' || word === 'fahrenheit');
  for (const { word, power } of unit.parts) {
    if (temperature && word.startsWith('degree')) continue;
    if (AREA.has(word) || VOLUME.has(word)) {
      const exponent = AREA.has(word) ? 2 : 3;
      // `cm squared` raises what came before, `square cm` what follows.
      if (word.endsWith('d') && powers.size > 0) raiseLast(powers, exponent);
      else pending = exponent;
      continue;
    }
    if (word === 'unit' || word === 'units') unnamed = power * (pending || 1);
    sense ||= SENSES.get(word) ?? '';
    if (EMPTY.has(word) || SENSES.has(word)) continue;
    const info = TABLE.get(word);
    if (info === undefined) {
      noun = singular(word);
      continue;
    }
    const exponent = power * (pending || 1);
    pending = 0;
    for (const [dimension, count] of info.powers)
      powers.set(dimension, (powers.get(dimension) ?? 0) + count * exponent);
    for (let i = 0; i < Math.min(Math.abs(exponent), 4); i += 1) {
      const step =
        exponent > 0 ? info.factor : { numerator: info.factor.denominator, denominator: info.factor.numerator };
      factor = multiplyRationals(factor, step) ?? factor;
    }
  }
  const known = [...powers]
    .filter(([, power]) => power !== 0)
    .map(([dimension, power]) => `${dimension}^${power}`)
    .sort()
    .join(' ');
  if (known !== '') return { dimension: known, factor, sense };
  if (noun !== '') return { dimension: `things:${noun}`, factor: ONE, sense };
  // Square units of whatever length.
  return { dimension: unnamed === 1 ? '' : `${UNNAMED}^${unnamed}`, factor: ONE, sense };
}

function raiseLast(powers: Map<string, number>, exponent: number): void {
  const last = [...powers.keys()].at(-1) as string;
  powers.set(last, exponent);
}

function singular(word: string): string {
  const irregular = IRREGULAR[word];
  if (irregular !== undefined) return irregular;
  if (/(?:ss|us|is)$/.test(word)) return word;
  if (/ies$/.test(word) && word.length > 4) return `${word.slice(0, -3)}y`;
  if (/(?:ches|shes|xes|sses)$/.test(word)) return word.slice(0, -2);
  return word.replace(/s$/, '');
}
