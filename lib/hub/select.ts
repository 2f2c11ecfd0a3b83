/** Which files of a repository a model needs. */
import { HubError, InvalidFileError } from '../errors.js';
import { companionFiles, indexFile, noWeights, singleFile } from '../model-folder.js';
import type { RepoFile } from './cache.js';

/** The largest tokenizers have some 50 MB; what is read whole into memory may not have any size. */
const maxSmallBytes = 500e6;

/**
 * Configuration, tokenizer and chat templates: everything of a model but its weights.
 *
 * @throws HubError for a repository without config.json, or with one of these files far too large.
 */
export function smallFiles(repo: string, files: readonly RepoFile[]): RepoFile[] {
  const names = new Set([...companionFiles, indexFile, 'config.json']);
  if (!files.some(({ path }) => path === 'config.json')) {
    throw new HubError(`${repo} has no config.json: it is not a model in Hugging Face layout`);
  }
  for (const { path, size } of files) {
    if (names.has(path) && size > maxSmallBytes) {
      throw new HubError(`${repo}: ${path} has ${(size / 1e9).toFixed(1)} GB; such a file is not read`);
    }
  }
  names.delete(indexFile);
  return files.filter(({ path }) => names.has(path) || /^additional_chat_templates\/[^/]+\.jinja$/.test(path));
}

/** The index of the shards, where the weights are not one file. */
export function weightIndex(files: readonly RepoFile[]): RepoFile | null {
  if (files.some(({ path }) => path === singleFile)) return null;
  return files.find(({ path }) => path === indexFile) ?? null;
}

/**
 * The files of the weights.
 *
 * @param shards - names that the index gives; null where there is none.
 * @throws HubError, before anything large is downloaded, for weights in other formats or a shard that is not there.
 */
export function weightsOf(repo: string, files: readonly RepoFile[], shards: readonly string[] | null): RepoFile[] {
  const names = shards ?? [singleFile];
  return names.map((name) => {
    const file = files.find(({ path }) => path === name);
    if (file) return file;
    if (shards !== null)
      throw new InvalidFileError(`${repo}: ${indexFile} names ${name}, which the repository does not have`);
    throw noWeights(
      repo,
      files.map(({ path }) => path),
    );
  });
}

/**
 * The files that match any of `patterns`, as `hf download --include` has it: `*` is any run of characters, `/` among
 * them, and `?` is one; a pattern that ends in `/` is a whole folder.
 *
 * @throws HubError for a pattern that no file matches.
 */
export function matching(repo: string, files: readonly RepoFile[], patterns: readonly string[]): RepoFile[] {
  const found = new Set<RepoFile>();
  for (const pattern of patterns) {
    const escaped = pattern
      .replace(/[\\^$.|+()[\]{}]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.');
    const expression = new RegExp(`^${escaped}${pattern.endsWith('/') ? '.*' : ''}$`, 's');
    const hits = files.filter(({ path }) => expression.test(path));
    if (hits.length === 0) throw new HubError(`${repo} has no file that matches ${JSON.stringify(pattern)}`);
    for (const hit of hits) found.add(hit);
  }
  return [...found];
}
