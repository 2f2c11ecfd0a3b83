/** Every public function that takes options refuses a key that it does not know, and what is no object. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import * as eepo from '../lib/index.js';
import { checkOptions, nearest } from '../lib/options.js';

type Any = Record<string, unknown>;
/** A call with options of the caller's choice, as plain JavaScript makes it. */
type Call = (options: never) => unknown;

const MODEL = 'models/countdown';
const hidden = eepo.Tensor.zeros([2, 3]);
const stub = { config: { maxPositionEmbeddings: 8 } } as never;
const batch = { logprob: [], offsets: [] } as never;
const normalizer = { tokens: 1, sequences: 1 };

let policy: eepo.Policy;
let tokenizer: eepo.Tokenizer;
let pool: eepo.VerifierPool;

/** The function, a misspelt key with what else it needs, and the key that was meant. */
const CASES: readonly [name: string, call: Call, options: Any, meant: string, allowed?: unknown][] = [
  ['tokenStats', (o) => eepo.tokenStats(hidden, [0, 0], o), { temprature: 2 }, 'temperature'],
  ['tokenGrad', (o) => eepo.tokenGrad(hidden, [0, 0], o), { a: [1, 1], tempreature: 2 }, 'temperature'],
  ['complementaryLoss', (o) => eepo.complementaryLoss(o), { logprob: [-1], entropy: [1], ofsets: [0, 1] }, 'offsets'],
  ['complementaryGrad', (o) => eepo.complementaryGrad(hidden, [0, 0], o), { epslow: 0 }, 'epsLow'],
  ['ascend', (o) => eepo.ascend([hidden], [null], o), { eta: 1, into: [hidden], roundng: 'nearest' }, 'rounding'],
  ['sample', (o) => eepo.sample(hidden, o), { topp: 0.5 }, 'topP'],
  ['Tensor.from', (o) => eepo.Tensor.from([1], o), { dtyp: 'float16' }, 'dtype'],
  ['Tensor.zeros', (o) => eepo.Tensor.zeros([1], o), { devic: 'cpu' }, 'device'],
  ['tensor.to', (o) => hidden.to(o), { dtpye: 'float16' }, 'dtype'],
  ['tensor.data', (o) => hidden.data(o), { sgnal: null }, 'signal'],
  ['tensor.bits', (o) => hidden.bits(o), { sgnal: null }, 'signal'],
  ['tensor.item', (o) => hidden.item(o), { sgnal: null }, 'signal'],
  ['tensor.clone', (o) => hidden.clone(o), { sgnal: null }, 'signal'],
  ['Policy.load', (o) => eepo.Policy.load(MODEL, o), { dtpe: 'bfloat16' }, 'dtype'],
  ['Policy.create', (o) => eepo.Policy.create({}, o), { sed: 1 }, 'seed'],
  ['policy.score', (o) => policy.score([[1]], o), { signl: null }, 'signal'],
  ['policy.logits', (o) => policy.logits([1], o), { signl: null }, 'signal'],
  ['policy.generate', (o) => policy.generate([[1]], o), { maxNewToken: 5 }, 'maxNewTokens'],
  ['policy.forward', (o) => policy.forward({ prompts: [[1]], responses: [[1]] }, o), { temp: 1 }, 'there are'],
  ['policy.step', (o) => policy.step(o), { lr: 0, weightdecay: 0 }, 'weightDecay'],
  ['policy.forget', (o) => policy.forget({ prompts: [], responses: [] }, o), { alfa: 1 }, 'alpha'],
  ['policy.save', (o) => policy.save('/nowhere', o), { maxShardByte: 1 }, 'maxShardBytes'],
  ['batch', (o) => policy.forward(o), { prompts: [[1]], response: [[1]] }, 'responses'],
  ['batch', (o) => policy.forget(o, {} as never), { prompt: [[1]], responses: [[1]] }, 'prompts'],
  ['twoStageRollout', (o) => eepo.twoStageRollout(stub, [{ id: 0, tokens: [1] }], o), { groupsize: 2 }, 'groupSize'],
  [
    'twoStageRollout: unlearn',
    (unlearn) => eepo.twoStageRollout(stub, [{ id: 0, tokens: [1] }], { groupSize: 2, maxNewTokens: 1, unlearn }),
    { epsHi: 1 },
    'epsHigh',
    null,
  ],
  ['writeReport', (o) => eepo.writeReport(['runs/mine'], o), { figure: ['svg'] }, 'figures'],
  ['watchRuns', (o) => eepo.watchRuns(o), { runs: ['runs/mine'], prot: 0 }, 'port'],
  ['grpo', (o) => eepo.grpo(o), { clipHi: 0.28 }, 'clipHigh'],
  ['grpo', (o) => eepo.grpoLoss(batch, normalizer, o), { klCoeff: 0 }, 'klCoef'],
  ['drGrpo', (o) => eepo.drGrpo(o), { agregation: 'token-mean' }, 'aggregation'],
  ['dapo', (o) => eepo.dapo(o), { dualclip: 3 }, 'dualClip'],
  ['gspo', (o) => eepo.gspo(o), { ratioLvl: 'token' }, 'ratioLevel'],
  ['cispo', (o) => eepo.cispo(o), { clipHi: 4 }, 'clipHigh'],
  ['nll', (o) => eepo.nll(o), { agregation: 'token-mean' }, 'aggregation'],
  ['nll', (o) => eepo.nllLoss(batch, normalizer, o), { agregation: 'token-mean' }, 'aggregation'],
  ['groupAdvantages', (o) => eepo.groupAdvantages([0, 1], 2, o), { epsilom: 0 }, 'epsilon'],
  ['tokenGate', (o) => eepo.tokenGate([1], [0, 1], o), { windw: 1 }, 'window'],
  ['new EntropyGate', (o) => new eepo.EntropyGate(o), { gatte: 'step' }, 'gate'],
  ['sampleReference', (o) => eepo.reference.sampleReference([[1]], o), { topk: 1 }, 'topK'],
  [
    'complementaryLossReference',
    (o) => eepo.reference.complementaryLossReference([-1], [1], [0, 1], o),
    { weights: [1] },
    'weight',
  ],
  ['new Trainer', (o) => new eepo.Trainer(o), { polcy: null, task: null }, 'policy'],
  ['trainRun', (o) => eepo.trainRun(o), { polcy: null }, 'policy'],
  ['new SftTrainer', (o) => new eepo.SftTrainer(o), { polcy: null }, 'policy'],
  ['evaluatePolicy', (o) => eepo.evaluatePolicy(stub, stub, stub, 'test', o), { maxNewToken: 1 }, 'maxNewTokens'],
  ['evaluateBenchmarks', (o) => eepo.evaluateBenchmarks(stub, stub, [], o), { sample: 8 }, 'samples'],
  ['loadBenchmarks', (o) => eepo.loadBenchmarks([], o), { promptstyle: 'plain' }, 'promptStyle'],
  ['loadDataSet', (o) => eepo.loadDataSet('none.jsonl', o), { tolerence: 1 }, 'tolerance'],
  ['resultTable', (o) => eepo.resultTable([], o), { base: 'GRPO' }, 'there are metric, baseline'],
  ['countdown', (o) => eepo.countdown(o), { sead: 1 }, 'seed'],
  ['calculator', (o) => eepo.calculator(o), { sead: 1 }, 'seed'],
  ['datasetTask', (o) => eepo.datasetTask(o), { file: { train: 'a' } }, 'files'],
  ['jsonlTask', (o) => eepo.jsonlTask(o), { files: {}, promptCol: 'p' }, 'promptColumn'],
  ['parquetTask', (o) => eepo.parquetTask(o), { files: {}, shufleSeed: 1 }, 'shuffleSeed'],
  ['mathTask', (o) => eepo.mathTask(o), { level: [3] }, 'levels'],
  ['gsm8kTask', (o) => eepo.gsm8kTask(o), { levels: [3] }, 'there are'],
  ['verlTask', (o) => eepo.verlTask(o), { maxProblem: 3 }, 'maxProblems'],
  ['mathTask', (o) => eepo.createTask('math', o), { level: [3] }, 'levels'],
  ['defineTask', (o) => eepo.defineTask(o), { name: 'x', rewrd: null }, 'reward'],
  ['download', (o) => eepo.download('a/b', o), { includes: [] }, 'include'],
  ['downloadFile', (o) => eepo.downloadFile('a/b', 'c', o), { retrys: 1 }, 'retries'],
  ['modelFolder', (o) => eepo.modelFolder(MODEL, o), { ofline: true }, 'offline'],
  ['Tokenizer.load', (o) => eepo.Tokenizer.load(MODEL, o), { chatTemplat: '' }, 'chatTemplate'],
  ['tokenizer.encode', (o) => tokenizer.encode('1', o), { addBOS: true, addBoss: true }, 'addBos'],
  ['tokenizer.encode', (o) => tokenizer.encodeBatch(['1'], o), { addSpecialToken: true }, 'addSpecialTokens'],
  ['tokenizer.encodePrompt', (o) => tokenizer.encodePrompt('1', o), { enableThinkin: true }, 'enableThinking'],
  ['tokenizer.encodePrompt', (o) => tokenizer.encodePrompts(['1'], o), { tool: [] }, 'tools'],
  ['tokenizer.applyChatTemplate', (o) => tokenizer.applyChatTemplate([], o), { document: [] }, 'documents'],
  ['tokenizer.decode', (o) => tokenizer.decode([1], o), { skipSpecialToken: false }, 'skipSpecialTokens'],
  ['tokenizer.stream', (o) => tokenizer.stream(o), { skipSpecialToken: false }, 'skipSpecialTokens'],
  ['taskSet', (o) => eepo.taskSet(eepo.countdown(), 'test', o), { onErrors: 'skip' }, 'onError'],
  ['equivalent', (o) => eepo.equivalent('1', '2', o), { tolerence: 0.1 }, 'tolerance'],
  ['equivalent: tolerance', (tolerance) => eepo.equivalent('1', '2', { tolerance }), { relativ: 1 }, 'relative', 3],
  ['compareAnswers', (o) => eepo.compareAnswers('1', '2', o), { tolerence: 0.1 }, 'tolerance'],
  ['extractAnswer', (o) => eepo.extractAnswer('1', o), { stict: 'boxed' }, 'strict'],
  ['verifyMath', (o) => eepo.verifyMath([], o), { poool: null }, 'pool'],
  ['new VerifierPool', (o) => new eepo.VerifierPool(o), { timeoutMS: 1 }, 'timeoutMs'],
  ['pool.verify', (o) => pool.verify([], o), { signl: null }, 'signal'],
  ['items[0]', (item) => pool.verify([item]), { predction: '1', gold: '1' }, 'prediction'],
  ['items[0].options', (options) => pool.verify([{ prediction: '1', gold: '1', options }]), { compar: {} }, 'compare'],
];

/** Functions of the package that take no options object, or whose check is another's. */
const WITHOUT_OPTIONS = new Set(
  [
    'normalizerOf overlongPenalty movingMeanEntropy samplesToForget cudaStatus deviceInfo emptyCache answerClasses majAtK passAtK readResult',
    'formatDetails formatResultTable keep scope createTask verifierReward tensorMemory cosineSchedule verifierPool',
    'defineConfig loadTrainConfig defineSftConfig loadSftConfig',
  ].flatMap((names) => names.split(' ')),
);

async function messageOf(call: () => unknown): Promise<string> {
  try {
    await call();
  } catch (error) {
    assert.ok(error instanceof eepo.InvalidArgumentError, `not an InvalidArgumentError: ${String(error)}`);
    return error.message;
  }
  throw new assert.AssertionError({ message: 'nothing was thrown' });
}

describe('options of public functions', () => {
  before(async () => {
    policy = await eepo.Policy.load(MODEL);
    tokenizer = await eepo.Tokenizer.load(MODEL);
    pool = new eepo.VerifierPool();
  });
  after(async () => {
    policy.dispose();
    hidden.dispose();
    await pool.close();
  });

  for (const [name, call, options, meant, allowed] of CASES) {
    it(`${name} { ${Object.keys(options).join(', ')} }`, async () => {
      const message = await messageOf(() => call(options as never));
      assert.ok(message.startsWith(`${name}: there is no option "`), message);
      assert.ok(message.includes(meant.startsWith('there are') ? meant : `did you mean ${meant}?`), message);
      for (const wrong of [null, 3, 'fast', [1]]) {
        if (wrong === allowed) continue;
        const told = await messageOf(() => call(wrong as never));
        assert.ok(told.startsWith(`${name} needs options { `), `${String(wrong)}: ${told}`);
      }
    });
  }

  it('covers every exported function and class', () => {
    const covered = CASES.map(([, call]) => call.toString()).join('\n');
    const missing = Object.entries(eepo)
      .filter(([name, value]) => typeof value === 'function' && !(value.prototype instanceof Error) && name !== 'Error')
      .map(([name]) => name)
      .filter((name) => !WITHOUT_OPTIONS.has(name) && !new RegExp(`\\beepo\\.${name}\\b`).test(covered));
    assert.deepEqual(missing, ['MetricAccumulator']);
  });

  it('refuses a configuration that is no object of sections', () => {
    assert.throws(() => eepo.defineConfig(3 as never), /config must be an object of the sections run, .*; got 3/);
    assert.throws(() => eepo.defineConfig({ model: 'a' } as never), /\[model\] must be an object of options; got "a"/);
    assert.throws(
      () => eepo.defineConfig({ rolout: {} } as never),
      /\[rolout\] is not a section; did you mean \[rollout\]/,
    );
    assert.throws(() => eepo.defineSftConfig(null as never), /config must be an object of the sections/);
  });

  it('names the reward that has an unknown key', () => {
    const rewards = [{ name: 'a', fn: () => [], wieght: 2 }];
    assert.throws(
      () => eepo.defineTask({ name: 'x', splits: {}, rewards } as never),
      /^InvalidArgumentError: rewards\[0\]: there is no option "wieght"; did you mean weight\?/,
    );
  });
});

describe('checkOptions', () => {
  it('accepts known keys, undefined values and none at all', () => {
    const known = { a: true, b: true } as const;
    checkOptions({} as { a?: number; b?: number }, known, 'f');
    checkOptions({ a: undefined, b: 1 }, known, 'f');
  });

  it('does not take what every object has for an option', () => {
    assert.throws(
      () => checkOptions({ toString: 1 } as never, { a: true } as never, 'f'),
      /there is no option "toString"/,
    );
  });

  it('lists the keys where none is near, and cuts long names', () => {
    assert.throws(() => checkOptions({ zzzzzz: 1 } as never, { a: true, b: true } as never, 'f'), /; there are a, b$/);
    const long = 'x'.repeat(1000);
    assert.throws(
      () => checkOptions({ [long]: 1 } as never, { a: true } as never, 'f'),
      (error: Error) => error.message.length < 120,
    );
    assert.equal(nearest('temprature', ['temperature', 'topP']), 'temperature');
  });
});
