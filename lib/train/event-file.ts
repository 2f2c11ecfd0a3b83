/**
 * TensorBoard's event files: records of TFRecord, each one Event in protocol buffers. The format is that of
 * tensorflow/core/lib/io/record_writer.h and tensorflow/core/util/event.proto; scalars are all that is written here.
 *
 *     record   length (uint64) | masked CRC-32C of it | bytes | masked CRC-32C of them, little-endian
 *     Event    1: wall_time (double, seconds since 1970), 2: step (int64), and one of
 *              3: file_version, 5: summary { 1: value { 1: tag, 2: simple_value (float) } }, 7: session_log { 1: status }
 */

/** A varint holds 7 bits a byte; safe integers have 53. */
const VARINT_BYTES = 8;
const STEP_FIELD = 2 << 3;
const SUMMARY_FIELD = (5 << 3) | 2;
const HEADER_BYTES = 12;
const FOOTER_BYTES = 4;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  // the polynomial of Castagnoli, reflected
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC-32C of bytes (RFC 3720, B.4). */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (CRC_TABLE[(crc ^ byte) & 0xff] as number);
  return (crc ^ 0xffffffff) >>> 0;
}

/** As records hold it: turned by 15 bits plus a constant, since a CRC of data that contains CRCs is a bad one. */
export function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** One TFRecord. */
export function record(data: Uint8Array): Buffer {
  const out = Buffer.alloc(HEADER_BYTES + data.length + FOOTER_BYTES);
  out.writeBigUInt64LE(BigInt(data.length), 0);
  out.writeUInt32LE(maskedCrc(out.subarray(0, 8)), 8);
  out.set(data, HEADER_BYTES);
  out.writeUInt32LE(maskedCrc(data), HEADER_BYTES + data.length);
  return out;
}

/** The data of whole records from the beginning of a file. What comes after the first that is torn or damaged is lost. */
export function* records(file: Buffer): Generator<Buffer> {
  let at = 0;
  while (at + HEADER_BYTES + FOOTER_BYTES <= file.length) {
    const length = Number(file.readBigUInt64LE(at));
    const end = at + HEADER_BYTES + length;
    if (file.readUInt32LE(at + 8) !== maskedCrc(file.subarray(at, at + 8)) || end + FOOTER_BYTES > file.length) return;
    const data = file.subarray(at + HEADER_BYTES, end);
    if (file.readUInt32LE(end) !== maskedCrc(data)) return;
    yield data;
    at = end + FOOTER_BYTES;
  }
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return Buffer.from([...bytes, rest]);
}

/** A field that says its length: text, bytes or a message. */
function delimited(field: number, content: Buffer): Buffer {
  return Buffer.concat([Buffer.from([(field << 3) | 2]), varint(content.length), content]);
}

function event(wallTime: number, step: number, what: Buffer): Buffer {
  const time = Buffer.alloc(9);
  time[0] = (1 << 3) | 1;
  time.writeDoubleLE(wallTime, 1);
  // 0 is what a step is that is not there
  const stepField = step === 0 ? [] : [Buffer.from([STEP_FIELD]), varint(step)];
  return record(Buffer.concat([time, ...stepField, what]));
}

/**
 * The beginning of a file: its version, and that a session starts at `step`. A reader that has seen another session of
 * this run drops what it knows of `step` and later.
 *
 * @param wallTime seconds since 1970
 */
export function startRecords(wallTime: number, step: number): Buffer {
  return Buffer.concat([
    event(wallTime, step, delimited(3, Buffer.from('brain.Event:2'))),
    event(wallTime, step, delimited(7, Buffer.from([1 << 3, 1]))),
  ]);
}

function scalar(tag: string, value: number): Buffer {
  const simple = Buffer.alloc(5);
  simple[0] = (2 << 3) | 5;
  simple.writeFloatLE(value, 1);
  return delimited(1, Buffer.concat([delimited(1, Buffer.from(tag)), simple]));
}

/**
 * All metrics of a step as one record, so that none of them can be there without the others. Values become float32.
 *
 * @param wallTime seconds since 1970
 */
export function scalarsRecord(wallTime: number, step: number, metrics: Readonly<Record<string, number>>): Buffer {
  const values = Object.entries(metrics).map(([tag, value]) => scalar(tag, value));
  return event(wallTime, step, delimited(5, Buffer.concat(values)));
}

/** When the steps of a file were written, in seconds since 1970, as far as it is whole. */
export function wallTimes(file: Buffer): Map<number, number> {
  const times = new Map<number, number>();
  for (const data of records(file)) {
    const head = readHead(data);
    if (head !== null) times.set(head.step, head.wallTime);
  }
  return times;
}

/** Time and step of a record with scalars as {@link scalarsRecord} writes it; null for any other. */
function readHead(data: Buffer): { wallTime: number; step: number } | null {
  let step = 0;
  let at = 9;
  if (data[at] === STEP_FIELD) {
    let byte = 0x80;
    for (let scale = 1; byte >= 0x80 && scale < 2 ** (7 * VARINT_BYTES); scale *= 0x80) {
      at += 1;
      byte = data[at] ?? 0;
      step += (byte & 0x7f) * scale;
    }
    at += 1;
  }
  return data[at] === SUMMARY_FIELD ? { wallTime: data.readDoubleLE(1), step } : null;
}
