import { crc32, deflateRawSync } from 'node:zlib';

export interface ZipEntry {
  name: string;
  data: Buffer | string;
  /** Unix mode with file type; default a regular file. */
  mode?: number;
  /** A wrong checksum, for damaged archives. */
  crc?: number;
}

/** A zip archive of deflated entries, written by hand so that hostile ones can be made. */
export function zip(entries: ZipEntry[]): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, data, mode = 0o100644, crc } of entries) {
    const raw = Buffer.from(data);
    const packed = deflateRawSync(raw);
    const fileName = Buffer.from(name);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(0x0800, 2);
    common.writeUInt16LE(8, 4);
    common.writeUInt32LE(crc ?? crc32(raw), 10);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(raw.length, 18);
    common.writeUInt16LE(fileName.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, fileName, packed]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE((mode << 16) >>> 0, 6);
    tail.writeUInt32LE(offset, 10);
    directory.push(Buffer.from('PK\x01\x02\x14\x03', 'latin1'), common, tail, fileName);
    parts.push(local);
    offset += local.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 0, 'latin1');
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, central, end]);
}

/** The entries of something that looks like a libtorch distribution; `top` is `torch` in a wheel, else `libtorch`. */
export function libtorchEntries(top: 'torch' | 'libtorch', version = '2.13.0'): ZipEntry[] {
  return [
    { name: `${top}/lib/libtorch_cpu.so`, data: Buffer.alloc(300_000, 'not an ELF file ') },
    { name: `${top}/lib/libc10.so`, data: 'not an ELF file either' },
    { name: `${top}/lib/libtorch_python.so`, data: 'not needed' },
    { name: `${top}/include/ATen/ATen.h`, data: '#pragma once\n' },
    { name: `${top}/share/cmake/Torch/TorchConfigVersion.cmake`, data: `set(PACKAGE_VERSION "${version}")\n` },
    { name: `${top}/__init__.py`, data: 'print("not needed")\n' },
    { name: 'elsewhere/readme.txt', data: 'not needed' },
  ];
}
