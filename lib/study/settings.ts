/** The settings of the methods of a study: combinations of swept values, and where training may stop. */
import type { MethodSpec } from './schema.js';

/** Values of swept options: what a run is trained with. */
export interface Variant {
  /** `eta=0.003,alpha=0.3`; `default` without a sweep. */
  id: string;
  values: Readonly<Record<string, unknown>>;
  /** Of the method that this one starts from. */
  parent: Variant | null;
}

/** A variant, read at the end of training or at an earlier iteration. */
export interface Setting {
  id: string;
  variant: Variant;
  stop: number | null;
}

/** A method that is reported. */
export interface Method {
  name: string;
  label: string;
  /** The [[method]] it comes from; several come from one with tune = false. */
  family: string;
  spec: MethodSpec;
  from: Method | null;
  settings: readonly Setting[];
  /** Whether there is a choice between settings, apart from that of the method it starts from. */
  tuned: boolean;
}

const shown = (value: unknown): string => (Array.isArray(value) ? value.map(shown).join('_') : String(value));

/** `eta` for `unlearn.eta`, where no other key of the sweep ends so. */
function shortKey(key: string, all: readonly string[]): string {
  const last = key.split('.')[1] as string;
  return all.filter((other) => other.split('.')[1] === last).length === 1 ? last : key;
}

/** Every combination of the values of a sweep, the last key moving fastest. */
function combinations(sweep: MethodSpec['sweep']): { id: string; values: Record<string, unknown> }[] {
  const keys = Object.keys(sweep);
  const grid = keys.reduce<Record<string, unknown>[]>(
    (rows, key) => rows.flatMap((row) => (sweep[key] ?? []).map((value) => ({ ...row, [key]: value }))),
    [{}],
  );
  return grid.map((values) => ({
    id: keys.map((key) => `${shortKey(key, keys)}=${shown(values[key])}`).join(','),
    values,
  }));
}

const settingId = (id: string, stop: number | null): string =>
  [id, stop === null ? '' : `@${stop}`].filter((part) => part !== '').join(',') || 'default';

/** The methods of a study with all their settings. `tune = false` makes a method of each. */
export function expandMethods(specs: readonly MethodSpec[]): Method[] {
  const methods: Method[] = [];
  for (const spec of specs) {
    const from = methods.find(({ name }) => name === spec.from) ?? null;
    const parents: (Variant | null)[] = from === null ? [null] : [...new Set(from.settings.map((s) => s.variant))];
    const stops: (number | null)[] = spec.stop ?? [null];
    const own = combinations(spec.sweep).map(({ id, values }) =>
      parents.map((parent): Variant => ({ id: id === '' ? 'default' : id, values, parent })),
    );
    const withStops = (variants: readonly Variant[], stop: number | null): Setting[] =>
      variants.map((variant) => ({
        id: settingId(variant.id === 'default' ? '' : variant.id, stop),
        variant,
        stop,
      }));
    const groups = own.flatMap((variants) => stops.map((stop) => withStops(variants, stop)));
    const label = spec.label ?? spec.name;
    const made = { family: spec.name, spec, from };
    if (spec.tune) {
      methods.push({ ...made, name: spec.name, label, settings: groups.flat(), tuned: groups.length > 1 });
    } else {
      for (const settings of groups) {
        const id = (settings[0] as Setting).id;
        methods.push({ ...made, name: `${spec.name}:${id}`, label: `${label}, ${id}`, settings, tuned: false });
      }
    }
  }
  return methods;
}

/** All swept values of a variant, those of the method it starts from first, in the order in which they are applied. */
export const chainOf = (variant: Variant): Variant[] =>
  variant.parent === null ? [variant] : [...chainOf(variant.parent), variant];
