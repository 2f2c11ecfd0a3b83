/** Reads event files of TensorBoard with nothing of the library: any protocol buffers, checksums not looked at. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

export interface ScalarEvent {
  wallTime: number;
  step: number;
  /** Tag -> value; null where the event is no summary. */
  scalars: Record<string, number> | null;
  fileVersion?: string;
  /** 1: a session starts. */
  session?: number;
}

type Field = { field: number; value: Buffer | number };

/** Fields of a message; numbers of 4 and 8 bytes stay bytes. */
function* fields(message: Buffer): Generator<Field> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[at++];
      if (byte === undefined) throw new Error('a varint is cut off');
      value += (byte % 128) * scale;
      if (byte < 128) return value;
    }
  };
  const take = (length: number): Buffer => {
    if (at + length > message.length) throw new Error('a field is cut off');
    at += length;
    return message.subarray(at - length, at);
  };
  while (at < message.length) {
    const key = varint();
    const wire = key % 8;
    const field = Math.floor(key / 8);
    if (wire === 0) yield { field, value: varint() };
    else if (wire === 1) yield { field, value: take(8) };
    else if (wire === 2) yield { field, value: take(varint()) };
    else if (wire === 5) yield { field, value: take(4) };
    else throw new Error(`wire type ${wire}`);
  }
}

function scalarOf(value: Buffer): [string, number] {
  const parts = new Map([...fields(value)].map(({ field, value: content }) => [field, content as Buffer]));
  return [(parts.get(1) as Buffer).toString('utf8'), (parts.get(2) as Buffer).readFloatLE()];
}

function eventOf(message: Buffer): ScalarEvent {
  const event: ScalarEvent = { wallTime: Number.NaN, step: 0, scalars: null };
  for (const { field, value } of fields(message)) {
    if (field === 1) event.wallTime = (value as Buffer).readDoubleLE();
    if (field === 2) event.step = value as number;
    if (field === 3) event.fileVersion = value.toString();
    if (field === 5)
      event.scalars = Object.fromEntries([...fields(value as Buffer)].map((v) => scalarOf(v.value as Buffer)));
    if (field === 7) event.session = [...fields(value as Buffer)][0]?.value as number;
  }
  return event;
}

/** The events of one file, and how many bytes after the last whole one are a torn one. */
export function readEvents(file: Buffer): { events: ScalarEvent[]; torn: number } {
  const events: ScalarEvent[] = [];
  let at = 0;
  while (at + 16 <= file.length) {
    const end = at + 16 + Number(file.readBigUInt64LE(at));
    if (end > file.length) break;
    events.push(eventOf(file.subarray(at + 12, end - 4)));
    at = end;
  }
  return { events, torn: file.length - at };
}

/** Names of the event files of a run that are not empty, oldest first. */
export const eventFileNames = (run: string): string[] =>
  readdirSync(join(run, 'tensorboard'))
    .filter((name) => name.includes('tfevents') && statSync(join(run, 'tensorboard', name)).size > 0)
    .sort();

/** The scalars in the one event file that a run must have. */
export function scalarsOf(run: string): (ScalarEvent & { scalars: Record<string, number> })[] {
  const [name, ...more] = eventFileNames(run);
  if (name === undefined || more.length > 0) throw new Error(`${1 + more.length} event files instead of one`);
  const { events, torn } = readEvents(readFileSync(join(run, 'tensorboard', name)));
  if (torn > 0) throw new Error(`${torn} torn bytes`);
  const [version, start, ...rest] = events;
  if (version?.fileVersion !== 'brain.Event:2' || start?.session !== 1) throw new Error('no beginning of a session');
  return rest.map((event) => {
    if (event.scalars === null) throw new Error('an event that is no summary');
    return { ...event, scalars: event.scalars };
  });
}
