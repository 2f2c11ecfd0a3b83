/** Files of data sets on the Hugging Face hub. */
import { download, type HubOptions } from '../hub/index.js';
import type { HubFetch } from './data/source.js';

/**
 * Gives the folder of this machine's cache that holds the files of a data set that a path names, downloaded first where
 * they are not there. What `hub` does not say comes from the environment (HF_TOKEN, HF_HOME, HF_HUB_OFFLINE).
 */
export function hubFetch(hub: HubOptions = {}): HubFetch {
  return ({ repo, revision, path }, signal) =>
    download(repo, {
      ...hub,
      type: 'dataset',
      include: [path],
      ...(revision === null ? {} : { revision }),
      ...(signal === undefined ? {} : { signal }),
    });
}

/** {@link hubFetch} as the environment says. */
export const fetchDataFiles: HubFetch = hubFetch();
