/** The connection to the network: proxies as the environment names them, and limits on silence. */
import { Agent, type Dispatcher, EnvHttpProxyAgent } from 'undici';
import { InvalidArgumentError } from './errors.js';

export interface Timeouts {
  /** Milliseconds for a connection; default 15 000. */
  connect?: number;
  /** Milliseconds without a byte from the server; default 60 000. */
  silence?: number;
}

/**
 * An undici dispatcher that respects HTTP_PROXY, HTTPS_PROXY and NO_PROXY (either case). The caller closes it.
 *
 * @throws InvalidArgumentError for a proxy that is no URL; its text, which may hold a password, is not shown
 */
export function proxyAgent(env: NodeJS.ProcessEnv, { connect = 15_000, silence = 60_000 }: Timeouts = {}): Dispatcher {
  const httpProxy = env.http_proxy ?? env.HTTP_PROXY;
  const httpsProxy = env.https_proxy ?? env.HTTPS_PROXY;
  const timeouts = { connect: { timeout: connect }, headersTimeout: silence, bodyTimeout: silence };
  if (!httpProxy && !httpsProxy) return new Agent(timeouts);
  for (const [name, proxy] of Object.entries({ HTTP_PROXY: httpProxy, HTTPS_PROXY: httpsProxy })) {
    if (proxy && !/^https?:$/.test(protocolOf(proxy))) {
      throw new InvalidArgumentError(`${name} must be a URL such as http://proxy.example:3128`);
    }
  }
  // undici announces at every construction that this class may still change; that is our concern, not the user's.
  const emitWarning = process.emitWarning;
  process.emitWarning = () => {};
  try {
    return new EnvHttpProxyAgent({ ...timeouts, httpProxy, httpsProxy, noProxy: env.no_proxy ?? env.NO_PROXY ?? '' });
  } finally {
    process.emitWarning = emitWarning;
  }
}

function protocolOf(url: string): string {
  try {
    return new URL(url).protocol;
  } catch {
    return '';
  }
}
