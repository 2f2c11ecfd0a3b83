/** Files of data sets on the Hugging Face hub. */
import { download } from '../hub/index.js';
import type { HubFetch } from './data/source.js';

/**
 * The folder of this machine's cache that holds the files of a data set that `path` names, downloaded first where they
 * are not there. Token, cache folder and offline mode come from the environment (HF_TOKEN, HF_HOME, HF_HUB_OFFLINE).
 *
 * @throws HubError saying what to do
 */
export const fetchDataFiles: HubFetch = ({ repo, revision, path }, signal) =>
  download(repo, {
    type: 'dataset',
    include: [path],
    ...(revision === null ? {} : { revision }),
    ...(signal === undefined ? {} : { signal }),
  });
