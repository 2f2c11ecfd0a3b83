/** Checkpoints that were saved here, read by transformers (EEPO_PYTHON). */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Policy } from '../lib/policy.js';
import { ROOT } from './support/data.js';
import { temporaryFolder } from './support/files.js';
import { needsPython, runPython } from './support/python-modules.js';

const program = `
import json, sys, torch
from transformers import AutoModelForCausalLM
model, report = AutoModelForCausalLM.from_pretrained(
    sys.argv[1], dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
ids = json.loads(sys.argv[2])
with torch.no_grad():
    logits = model(torch.tensor([ids])).logits[0]
print(json.dumps({"logits": logits.flatten().tolist(), "missing": sorted(report["missing_keys"]),
                  "unexpected": sorted(report["unexpected_keys"])}))
`;

const fixtures = join(ROOT, 'test', 'fixtures', 'goldens');
const models = readdirSync(fixtures, { withFileTypes: true }).filter((entry) => entry.isDirectory());

describe('transformers loads a saved', needsPython('torch', 'transformers'), () => {
  for (const { name } of models) {
    it(name, async (t) => {
      const dir = temporaryFolder(t);
      using policy = await Policy.load(join(fixtures, name));
      const ids = Array.from({ length: 30 }, (_, i) => (11 * i + (i % 4)) % policy.config.vocabSize);
      // one step, so that what is saved is not what was read
      await policy.forward({ prompts: [ids.slice(0, 2)], responses: [ids.slice(2)] });
      await policy.backward(new Float32Array(28).fill(-1 / 28), null);
      await policy.step({ lr: 1e-2 });
      await policy.save(dir);
      const seen = runPython(program, dir, JSON.stringify(ids)) as {
        logits: number[];
        missing: string[];
        unexpected: string[];
      };
      assert.deepEqual([seen.missing, seen.unexpected], [[], []]);
      using logits = await policy.logits(ids);
      const own = await logits.data();
      assert.equal(own.length, seen.logits.length);
      for (const [i, z] of seen.logits.entries()) {
        assert.ok(Math.abs((own[i] as number) - z) < 1e-4, `logit ${i}: ${own[i]} here, ${z} there`);
      }
    });
  }
});
