/** The connection to the network: proxies as the environment names them, and limits on silence. */
import { Agent, type Dispatcher, EnvHttpProxyAgent } from 'undici';

export interface Timeouts {
  /** Milliseconds for a connection; default 15 000. */
  connect?: number;
  /** Milliseconds without a byte from the server; default 60 000. */
  silence?: number;
}

/** An undici dispatcher that respects HTTP_PROXY, HTTPS_PROXY and NO_PROXY (either case). The caller closes it. */
export function proxyAgent(env: NodeJS.ProcessEnv, { connect = 15_000, silence = 60_000 }: Timeouts = {}): Dispatcher {
  const httpProxy = env.http_proxy ?? env.HTTP_PROXY;
  const httpsProxy = env.https_proxy ?? env.HTTPS_PROXY;
  const timeouts = { connect: { timeout: connect }, headersTimeout: silence, bodyTimeout: silence };
  if (!httpProxy && !httpsProxy) return new Agent(timeouts);
  // undici announces at every construction that this class may still change; that is our concern, not the user's.
  const emitWarning = process.emitWarning;
  process.emitWarning = () => {};
  try {
    return new EnvHttpProxyAgent({ ...timeouts, httpProxy, httpsProxy, noProxy: env.no_proxy ?? env.NO_PROXY ?? '' });
  } finally {
    process.emitWarning = emitWarning;
  }
}
