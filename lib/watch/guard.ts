/**
 * Who may ask a server on this machine. A page of a stranger can make the user's browser send requests to any port here,
 * and by a name that it lets point to 127.0.0.1 (DNS rebinding) it could read the answers. So the name that was asked
 * for must be ours, and a request that another page caused is refused. Pure.
 */
import { timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';

/** Why a request is refused: status and text of the answer. */
export interface Refusal {
  status: 400 | 403 | 405 | 421;
  text: string;
}

export interface GuardOptions {
  /** The address it is bound to, or the name that was given for it. */
  host: string;
  /** Names of this machine, for a server that others may reach. */
  names?: readonly string[];
}

/** Whether an address or a name is of this machine alone. */
export function isLoopback(host: string): boolean {
  const name = bare(host).toLowerCase();
  return name === 'localhost' || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

/** Without the brackets that an address of IPv6 has in a URL. */
export const bare = (host: string): string => host.replace(/^\[(.*)\]$/, '$1');

/** As it stands in a URL. */
export const inUrl = (host: string): string => (isIP(bare(host)) === 6 ? `[${bare(host)}]` : host);

/** Name and port of a Host header or an origin, or null where it is none. */
function authority(text: string): { name: string; port: string } | null {
  const [, name, port] = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?$/.exec(text) ?? [];
  return name === undefined ? null : { name: bare(name).toLowerCase().replace(/\.$/, ''), port: port ?? '80' };
}

function isOurs(name: string, { host, names = [] }: GuardOptions): boolean {
  if (isLoopback(host)) return isLoopback(name);
  if (isLoopback(name) || name === bare(host).toLowerCase()) return true;
  // a rebound name is a name: an address cannot be one
  return isIP(name) !== 0 || names.some((own) => own.toLowerCase() === name);
}

/**
 * Checks the method and the headers with which a browser says whom it asks, and for whom. null: the request may pass.
 * Of Host the name counts alone: behind a tunnel (ssh -L) the port is another one.
 */
export function refusal(
  method: string | undefined,
  headers: IncomingHttpHeaders,
  options: GuardOptions,
): Refusal | null {
  const host = authority(headers.host ?? '');
  if (host === null) return { status: 400, text: 'The header Host is missing or malformed.' };
  if (!isOurs(host.name, options)) {
    return { status: 421, text: 'This server does not answer to that name; use the address that eepo watch printed.' };
  }
  if (method !== 'GET' && method !== 'HEAD') return { status: 405, text: 'Only GET and HEAD: nothing can be changed.' };
  if (!isOwnOrigin(headers.origin, host)) return { status: 403, text: 'Another origin asked for this.' };
  if (!isOwnFetch(headers)) return { status: 403, text: 'Another site asked for this.' };
  return null;
}

function isOwnOrigin(origin: string | undefined, host: { name: string; port: string }): boolean {
  if (origin === undefined) return true;
  const from = origin.startsWith('http://') ? authority(origin.slice('http://'.length)) : null;
  return from !== null && from.name === host.name && from.port === host.port;
}

/** Browsers say where a request comes from; a link on another page may lead here, nothing else. */
function isOwnFetch(headers: IncomingHttpHeaders): boolean {
  const site = headers['sec-fetch-site'];
  if (site === undefined || site === 'same-origin' || site === 'none') return true;
  return headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document';
}

/** Compares in a time that does not tell how much was right. */
export function sameToken(given: string | null | undefined, token: string): boolean {
  const [a, b] = [Buffer.from(given ?? ''), Buffer.from(token)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/** The value of one cookie. */
export function cookie(header: string | undefined, name: string): string | null {
  for (const part of (header ?? '').split(';')) {
    const at = part.indexOf('=');
    if (at > 0 && part.slice(0, at).trim() === name) return part.slice(at + 1).trim();
  }
  return null;
}
