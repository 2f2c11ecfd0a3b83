import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { compareAnswers, judge } from '../lib/verify/index.js';

/** Look-alikes, a pair a line. A wrong reward is worse than a missing one. */
const DIFFERENT = String.raw`
3 ≠ an even function with 3 zeros
5 ≠ The triangle has exactly 5 acute angles
2 ≠ both of the roots are less than 2
10 ≠ if and only if n is at least 10
4 ≠ rhombus with side 4
7 ≠ It is divisible by 7
$n$ ≠ all primes less than $n$
6 ≠ $p$ is prime and $p \equiv 1 \pmod 6$ or $p=6$
3 ≠ $n$ not divisible by $3$
n is even ≠ n is odd
all positive integers ≠ all integers
(2,3) and (3,2) ≠ (2,3)
No, it is not possible ≠ Yes, it is possible
impossible ≠ possible
never ≠ always
5 years old ≠ 5 months old
3rd quadrant ≠ 4th quadrant
III ≠ IV
V ≠ 5
Alice and Bob ≠ Alice
2 hours ≠ 2 hours 30 minutes
1 foot 6 inches ≠ 1 foot
12 noon ≠ 12 midnight
-40 C ≠ -40 F
2 red 3 blue ≠ 3 red 2 blue
5 \pmod 6 ≠ 5 \pmod 7
0.333... ≠ 0.333
2 to 1 ≠ 1 to 2
5 \to 6 ≠ 6
twelve ≠ 20
all reals ≠ all integers
43 ≠ 0.43
[0,9) ≠ (0,9)
4210_7 ≠ 4210_5
40 feet ≠ 40 min
40 \text{ feet} ≠ 40 \text{ min}
(1,2) ≠ (2,1)
(1,2) ≠ [1,2]
\{1,2\} ≠ \{1,2,3\}
1,2,3 ≠ 1,2
1 ≠ 1,1,1
x^2 ≠ x^{20}
x^2 ≠ 2x
2^{10} ≠ 210
\frac{1}{23} ≠ \frac{12}{3}
\frac12 ≠ 12
1\frac12 ≠ \frac{11}{2}
-5 ≠ 5
5\% ≠ 0.5
50\% ≠ 5
\sqrt{2} ≠ 2
\sqrt 23 ≠ \sqrt{23}
\sqrt[3]{8} ≠ \sqrt{8}
\pi ≠ 3.14
22/7 ≠ \pi
0.333 ≠ 1/3
1e3 ≠ 1^3
12:30 ≠ 12.30
1:2 ≠ 2:1
1:2 ≠ 1/3
3:4 ≠ 34
10:00 a.m. ≠ 10:00 p.m.
\text{even} ≠ \text{odd}
Yes ≠ No
True ≠ False
A ≠ B
(A) ≠ (B)
AB ≠ BA
\text{Alice} ≠ \text{Bob}
x ≠ y
a+b ≠ ab
x-1 ≠ 1-x
x+1 ≠ x-1
\sin x ≠ \cos x
\sin^2 x ≠ \sin x^2
\sin 2x ≠ 2\sin x
\log_2 8 ≠ \log_8 2
\ln x ≠ \log_2 x
x=5 ≠ y=6
x = 5 ≠ x = -5
y = 2x+3 ≠ y=3x+2
y=2x+1 ≠ 2x+1=0
x^2+y^2=25 ≠ x^2+y^2=5
x^2+y^2=25 ≠ 25
x+y=5 ≠ 5
x<5 ≠ x>5
x<5 ≠ x\le 5
x\ge 5 ≠ x \le 5
x \neq 5 ≠ x=5
x\neq 5 ≠ 5
x<5 ≠ 5
x\in(0,5) ≠ x\in[0,5]
(-\infty,5) ≠ (-\infty,5]
(0,1)\cup(2,3) ≠ (0,1)\cap(2,3)
(0,1)\cup(2,3) ≠ (0,3)
(1,2) ≠ \{1,2\}
(1,2,3) ≠ 123
12 ≠ 1,2
1,234 ≠ 1,2,34
1,2,34 ≠ 1234
1 234 ≠ 12 34
1.234 ≠ 1,234
1,5 ≠ 15
1.5 ≠ 15
1000 ≠ 1.000
\begin{pmatrix}1&2\\3&4\end{pmatrix} ≠ \begin{pmatrix}1&3\\2&4\end{pmatrix}
\begin{pmatrix}1&2\end{pmatrix} ≠ \begin{pmatrix}1\\2\end{pmatrix}
\begin{pmatrix}1\\2\end{pmatrix} ≠ (2,1)
1+i ≠ 1-i
i ≠ -i
2i ≠ 2
|x| ≠ x
\sqrt{x^2} ≠ x
(-8)^{1/3} ≠ 2
\frac{x}{y} ≠ \frac{y}{x}
\binom{5}{2} ≠ \frac{5}{2}
5! ≠ 5
n! ≠ n
5! ≠ 5!!
3 \pm 2 ≠ 3+2
\pm 5 ≠ 5
5 ≠ \pm 5
\pm 2 ≠ 2,-3
n\pi ≠ \pi
2n\pi ≠ n\pi
x+C ≠ x
x^2+C ≠ x^2
x^2 + C ≠ x^2+1
5 cm ≠ 5 m
5 cm ≠ 5 cm^2
5 \text{ cm}^2 ≠ 5 \text{ cm}^3
5 kg ≠ 5 g
5 km ≠ 5 miles
5 hours ≠ 5 minutes
\$5 ≠ 5 cents
5 dollars ≠ 5 cents
90^\circ ≠ \pi
1^\circ ≠ 1 radian
5 degrees ≠ 5 radians
50 mph ≠ 50 km/h
1_2 ≠ 1_3
101_2 ≠ 101
101_2 ≠ 5_3
11_2 ≠ 11_{10}
a_1 ≠ a_2
x_1 ≠ x_2
F_{16} ≠ F_{17}
A_{16} ≠ B_{16}
10_{16} ≠ 10
0 ≠ \emptyset
\emptyset ≠ \{0\}
\{\} ≠ 0
\text{none} ≠ 0
no solution ≠ 0
\infty ≠ -\infty
\infty ≠ 0
undefined ≠ 0
1/0 ≠ 2/0
0/0 ≠ 1
\frac{1}{0} ≠ \infty
0.1+0.2 ≠ 0.30000000000000004
10^{100} ≠ 10^{100}+1
10^{400} ≠ 10^{401}
2^{1000} ≠ 2^{1000}+1
9^{9^9} ≠ 9^{9^8}
1.0000000001 ≠ 1
0.99999999999999999 ≠ 1
123456789123456789 ≠ 123456789123456788
\sqrt{10^{40}+1} ≠ 10^{20}
e^{\pi\sqrt{163}} ≠ 262537412640768744
\frac{355}{113} ≠ \pi
\pi^4+\pi^5 ≠ e^6
2(3) ≠ 23
2(3) ≠ 5
2 3 ≠ 6
2 3 ≠ 23
3\frac{1}{2} ≠ 3/2
x 2 ≠ x^2
2x ≠ 2+x
f(x)=x ≠ f(x)=x+1
f(x) ≠ x
f(x) ≠ f(y)
f^{-1}(x) ≠ 1/f(x)
x^{-1} ≠ -x
a^b ≠ b^a
a^{b^c} ≠ (a^b)^c
2^{3^2} ≠ 64
-2^2 ≠ 4
(-2)^2 ≠ -4
1 or 2 ≠ 2
1, 2 ≠ 2
2 or 3 or 5 ≠ 5
1 and 2 ≠ 12
either 3 or 5 ≠ 5
3, maybe 5 ≠ 5
5 or 6 ≠ \{5\}
3; 5 ≠ 5
3/5 or 5 ≠ 5
x=1 or x=2 ≠ x=2
x=1,x=2 ≠ x=1
1\text{ or }2 ≠ 1
5 (not 6) ≠ 6
not 5 ≠ 5
\neg p ≠ p
5? ≠ 6
between 1 and 5 ≠ 5
at least 5 ≠ 5
more than 5 ≠ 5
less than 5 ≠ 5
5 or more ≠ 5
about 5 ≠ 6
none of 5 ≠ 5
it is not 5 ≠ 5
the answer is not 5 ≠ 5
5 is wrong ≠ 5
January 5 ≠ January 6
May 5 ≠ 5
Monday ≠ Sunday
triangle ≠ square
blue ≠ red
5 apples ≠ 5 oranges
5 red, 6 blue ≠ 5 blue, 6 red
Smith ≠ Smithson
abc ≠ ab
oddd ≠ odd
p ≠ q
\alpha ≠ \beta
\alpha ≠ a
\Delta ≠ \delta
X ≠ x
A ≠ a
\frac{a}{b+c} ≠ \frac{a}{b}+c
a/b+c ≠ a/(b+c)
1/2x ≠ \frac{1}{2x}
6/2(1+2) ≠ 1
x^2y ≠ (xy)^2
2x^2 ≠ (2x)^2
\sqrt{x}y ≠ \sqrt{xy}
\sqrt{x+1} ≠ \sqrt{x}+1
\frac{x^2-1}{x-1} ≠ x-1
\frac{(x-1)(x+1)}{x-1} ≠ x+2
(x+1)^2 ≠ x^2+1
(x+1)^2 ≠ x^2+2x+2
x^2-y^2 ≠ (x-y)^2
\log(ab) ≠ \log a\log b
e^{x+y} ≠ e^x+e^y
[1,2] ≠ 1.2
[1,2) ≠ [1,2
(1,2 ≠ (1,2)
1..2 ≠ 1.2
1- ≠ 1
+ ≠ -
$ ≠ 0
{} ≠ 0
() ≠ 0
. ≠ 0
- ≠ 0
\ ≠ 0
NaN ≠ NaN+1
Infinity ≠ 1
null ≠ 0
undefined ≠ undefined2
0x10 ≠ 16
1_000 ≠ 1000
1e5 ≠ 5
١ ≠ 2
５ ≠ 6
² ≠ 2
x² ≠ x2
½ ≠ 2
⅓ ≠ 3
10^{-3} ≠ 10^3
5\times 10^3 ≠ 5\times 10^{-3}
5\times10^3 ≠ 5\times 103
5 \cdot 10 ≠ 510
1.5\text{ million} ≠ 1.5
1.5 \text{ million} ≠ 1.5 billion
5 thousand ≠ 5
50 percent ≠ 0.05
100\% ≠ 100^2
5 hundred ≠ 5
5 couples ≠ 10
2 thirds ≠ 2
5 halves ≠ 5
5 tenths ≠ 5
half of 5 ≠ 5
twice 5 ≠ 5
5 squared ≠ 5
5 cubed ≠ 5
minus 5 ≠ 5
negative 5 ≠ 5
5 below zero ≠ 5
-5 below ≠ 5
5 million ≠ 5
5 factorial ≠ 5
square root of 5 ≠ 5
the square root of 5 ≠ 5
5 over 6 ≠ 5
5 times 6 ≠ 6
5 to the 6 ≠ 6
5 choose 2 ≠ 5
5 choose 2 ≠ 2
log 5 ≠ 5
five ≠ 6
five hundred ≠ 5
five thirds ≠ 5
fifty ≠ 5
0=0 ≠ x=5
0=0 ≠ x^2+y^2=1
1=1 ≠ x=x+1
x=x ≠ x=5
0 ≠ x-5=0
5=6 ≠ 5
x=5=6 ≠ 5
5 \approx 6 ≠ 6
5 \approx 5.5 ≠ 5.5
x \approx 5 ≠ 6
x=5, x=6 ≠ 5
x = 5 \text{ or } x = 6 ≠ x=6
5 (6) ≠ 5
5 (6) ≠ 6
5 [6] ≠ 5
5\text{ or 6} ≠ 5
5\text{ or 6} ≠ 6
5\text{ or }6 ≠ 6
\text{5 or }6 ≠ 6
5 \text{not } 6 ≠ 6
\text{not }6 ≠ 6
\text{not } 6 ≠ 6
\text{negative }6 ≠ 6
5 \mbox{ or } 6 ≠ 6
5 \mathrm{or} 6 ≠ 6
5,\text{ or } 6 ≠ 5
5 \quad 6 ≠ 6
5 \quad 6 ≠ 5
5\\6 ≠ 5
5\\6 ≠ 6
5 \& 6 ≠ 5
5 | 6 ≠ 5
5 \mid 6 ≠ 6
5;6 ≠ 6
5 / 6 ≠ 6
5 \to 6 ≠ 6
5\rightarrow 6 ≠ 6
5~6 ≠ 6
5\;6 ≠ 6
5\text{-}6 ≠ 5
5-6 ≠ 5
5–6 ≠ 5
5–6 ≠ 6
5...6 ≠ 5
5..6 ≠ 6
5 \lor 6 ≠ 6
5 \vee 6 ≠ 5
5 \wedge 6 ≠ 6
5 \oplus 6 ≠ 6
5 * 6 ≠ 6
5\%6 ≠ 5
5 \pmod 6 ≠ 5 \pmod 7
x \equiv 5 \pmod 6 ≠ x\equiv 5 \pmod 7
x\equiv 5\pmod 6 ≠ 5
1,2,3,\ldots ≠ 1,2,3
1,2,\dots,10 ≠ 1,2,10
1+2+\cdots+10 ≠ 1+2+10
0.\overline{3} ≠ 0.3
0.\overline{3} ≠ 1/3 + 0.0001
0.1\overline{6} ≠ 0.16
0.333... ≠ 0.333
0.33\ldots ≠ 1/3
3.14... ≠ \pi
1.5\overline{2} ≠ 1.52
\overline{AB} ≠ \overline{CD}
\angle A ≠ \angle B
\triangle ABC ≠ \triangle ABD
\vec{a} ≠ \vec{b}
\vec{a} ≠ -\vec{a}
a\times b ≠ b \times a + 1
\overline{5} ≠ 5
\bar{x} ≠ x
f' ≠ f
f'(x) ≠ f(x)
f'' ≠ f'
x^* ≠ x
x_1 ≠ x
\hat{i} ≠ i
A^T ≠ A
A^c ≠ A
\neg A ≠ A
A' ≠ A
\lfloor 2.5\rfloor ≠ 2.5
\lceil 2.5 \rceil ≠ 2
\lfloor x \rfloor ≠ x
\lfloor x\rfloor ≠ \lceil x\rceil
\lfloor x + 0.5 \rfloor ≠ x
\max(1,2) ≠ 1
\gcd(4,6) ≠ 4
\gcd(a,b) ≠ a
\min(x,y) ≠ x
\arcsin 1 ≠ \arccos 1
\sin 30 ≠ \sin 30^\circ
\sin 30 ≠ 1/2
\tan 45 ≠ 1
\cos 60 ≠ 0.5
\arctan(1) ≠ 45
\sum_{k=1}^{n} k ≠ \sum_{k=1}^{n+1} k
\sum_{k=1}^{n} k ≠ n(n-1)/2
\int_0^1 x dx ≠ x
\int x dx ≠ \int y dy + 1
\lim_{x\to 0} x ≠ 1
\frac{dy}{dx} ≠ y/x
\prod_{k=1}^n k ≠ n
x>0 ≠ x>-0.0001
0<x<5 ≠ 0<x
0<x<5 ≠ 0<x\le5
0<x<5 ≠ x<5
x<0 \text{ or } x>5 ≠ 0<x<5
x<0, x>5 ≠ x<0
x \le -1 \text{ or } x \ge 1 ≠ -1\le x\le 1
(-\infty,-1]\cup[1,\infty) ≠ [-1,1]
x \in \mathbb{R} ≠ x\in\mathbb{Z}
\mathbb{R} ≠ \mathbb{Q}
\mathbb{R}\setminus\{0\} ≠ \mathbb{R}
x\neq 0 ≠ \mathbb{R}
(0,\infty) ≠ [0,\infty)
x>0 ≠ x\geq 0
(1,3) ≠ (1,3]
1<x<3 ≠ [1,3]
(1,2) (3,4) ≠ (1,2)
(1,2),(3,4) ≠ (3,4),(1,3)
(1,2),(3,4) ≠ (1,3),(2,4)
\{(1,2),(3,4)\} ≠ \{(2,1),(3,4)\}
(2,(3,4)) ≠ ((2,3),4)
\{1,1,2\} ≠ \{1,2,2,3\}
(a,b] ≠ [a,b)
3:30 ≠ 3:03
3:30 ≠ 330
3:30 ≠ 3.5
12:00 ≠ 0
1:2:3 ≠ 3:2:1
2:4 ≠ 1:3
1 to 2 ≠ 2
2 to 1 ≠ 1 to 2
1/2/3 ≠ 1/(2/3)
7 R 3 ≠ 7
7 remainder 3 ≠ 7
7 r 3 ≠ 7 r 2
2^3 ≠ 2*3
2**3 ≠ 2*3
10 ^ 2 ≠ 102
x^-1 ≠ x-1
x^{-1} ≠ x-1
\frac{1}{x} ≠ x
\frac{5}{6} ≠ \frac{6}{5}
5\frac{1}{6} ≠ \frac{5}{6}
5 1/6 ≠ 51/6
5 1/6 ≠ 5/6
-1\frac{1}{2} ≠ -\frac12
-1\frac12 ≠ -1+\frac12
a\frac{1}{2} ≠ a+\frac12
2\sqrt{3} ≠ \sqrt{6}
2\sqrt3 ≠ \sqrt[2]{3}
\sqrt{2}+\sqrt{3} ≠ \sqrt{5}
\sqrt{2+\sqrt3} ≠ \sqrt{2-\sqrt3}
\sqrt{-4} ≠ -2
\sqrt{-4} ≠ 2
\sqrt[3]{-8} ≠ 2
(-1)^{1/2} ≠ -1
\log(-1) ≠ 0
e^{i\pi} ≠ 1
i^2 ≠ 1
\frac{1}{i} ≠ i
|3+4i| ≠ 7
3+4i ≠ 4+3i
$5$ and $6$ ≠ 6
$5$ or $6$ ≠ 5
$5$, $6$ ≠ 6
\(5\) \(6\) ≠ 6
$5$$6$ ≠ 56
$5$ $6$ ≠ 6
`;

/** Responses that must not earn the reward of the gold answer. */
const UNREWARDED = String.raw`
The answer is not 5 ≠ 5
The answer cannot be 5 ≠ 5
It is 4, not 5. ≠ 5
The answer is 4, not 5. ≠ 5
The answer is either 4 or 5 ≠ 5
The answer is 4 or 5 ≠ 4
The answer is between 4 and 5 ≠ 5
Answer: 4 (or 5) ≠ 5
Answer: 4/5 ≠ 5
Answer: 4.5 ≠ 5
Answer: 45 ≠ 5
the answer is -5 ≠ 5
The answer is $-5$ ≠ 5
the answer is – 5 ≠ 5
the answer is minus 5 ≠ 5
The final answer is 1/5 ≠ 5
I think 5. #### 6 ≠ 5
\boxed{4} or \boxed{5} ≠ 5
\boxed{4} or \boxed{5} ≠ 4
\boxed{5}\boxed{6} ≠ 6
\boxed{4 or 5} ≠ 5
\boxed{4\text{ or }5} ≠ 4
\boxed{5}, no wait, \boxed{6} ≠ 5
\boxed{5 \text{ is wrong}} ≠ 5
\boxed{\text{The answer is 5 or 6}} ≠ 6
\boxed{5 ≠ 5
<think>\boxed{5}</think> I do not know. ≠ 5
<answer>4</answer> or rather 5 ≠ 5
so x is 5x ≠ 5
so we get \frac{1}{5} ≠ 5
so we get 1 / 5 ≠ 5
so we get 2^5 ≠ 5
so we get 5 + 1 ≠ 1
so we get x = 5y ≠ 5
we get 10^-5 ≠ 5
we get 3 x 10^5 ≠ 5
we get 3 × 10^5 ≠ 5
We get 5e3 ≠ 5
we get 5,000 ≠ 5
we get 5 000 ≠ 0
we get 5 million ≠ 5
we get $5$ million ≠ 5
we get the square root of 5 ≠ 5
the point (4, 5) ≠ 5
the set \{4, 5\} ≠ 5
`;

const pairsOf = (text: string): [string, string][] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(' ≠ ') as [string, string]);

describe('no reward for a look-alike', () => {
  test('answers that differ', () => {
    const wrong = pairsOf(DIFFERENT).flatMap(([x, y]) =>
      [
        [x, y],
        [y, x],
      ].filter(([prediction, gold]) => compareAnswers(prediction as string, gold as string).equal),
    );
    assert.deepEqual(wrong, []);
  });

  test('responses that do not say it', () => {
    const wrong = pairsOf(UNREWARDED).filter(([response, gold]) => judge({ response, gold }).equal);
    assert.deepEqual(wrong, []);
  });

  test('a list of guesses is equal to none of them', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({ min: -20, max: 20 }), { minLength: 2, maxLength: 6 }),
        fc.constantFrom(
          ', ',
          ' or ',
          ' and ',
          '; ',
          '} or \\boxed{',
          '},\\boxed{',
          '\\text{ or }',
          ' \\lor ',
          '$ or $',
          ' / ',
          '\n',
        ),
        fc.nat(),
        (guesses, separator, pick) => {
          const gold = String(guesses[pick % guesses.length]);
          const response = `\\boxed{${guesses.join(separator)}}`;
          // 6/3 is no list: a quotient may be one of its terms.
          if (separator === ' / ') return;
          assert.ok(!judge({ response, gold }).equal, `${response} is not ${gold}`);
        },
      ),
      { numRuns: 500 },
    );
  });
});

/** Spellings of the number n/d, d a divisor of a power of ten where there are decimals. */
const SPELLINGS: readonly ((n: number, d: number) => string)[] = [
  (n, d) => `${n}/${d}`,
  (n, d) => `\\frac{${n}}{${d}}`,
  (n, d) => `\\dfrac{${-n}}{${-d}}`,
  (n, d) => `-\\frac{${-n}}{${d}}`,
  (n, d) => String(n / d),
  (n, d) => `$${n / d}$`,
  (n, d) => `x = ${n / d}`,
  (n, d) => `${(2 * n) / d} \\cdot \\frac{1}{2}`,
  (n, d) => `\\text{${n / d}}`,
  (n, d) => `${n / d} + 3 - 3`,
  (n, d) => `${n / d}.`,
];

test('numbers in any two spellings are equal exactly where their values are', () => {
  const spelling = fc.constantFrom(...SPELLINGS);
  const denominator = fc.constantFrom(1, 2, 4, 5, 8, 10, 20, 25, 50);
  const number = fc.tuple(fc.integer({ min: -300, max: 300 }), denominator, spelling);
  fc.assert(
    fc.property(number, number, ([n, d, write], [m, e, writeOther]) => {
      const [x, y] = [write(n, d), writeOther(m, e)];
      const { equal, reason } = compareAnswers(x, y);
      // A percentage point is the only other reading of a plain number, and none is written here.
      assert.equal(equal, n * e === m * d, `${x} and ${y}: ${reason}`);
      assert.ok(compareAnswers(x, writeOther(n, d)).equal, `${x} and ${writeOther(n, d)}`);
    }),
    { numRuns: 1_000 },
  );
});

test('brackets, order and number of items make a difference', () => {
  const items = fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 2, maxLength: 4 });
  fc.assert(
    fc.property(items, items, (a, b) => {
      const same = a.length === b.length && a.every((item, i) => item === b[i]);
      assert.equal(compareAnswers(`(${a.join(', ')})`, `\\left(${b.join(',')}\\right)`).equal, same, `(${a}) (${b})`);
      const set = (list: number[]): string => [...new Set(list)].sort().join();
      assert.equal(compareAnswers(`\\{${a}\\}`, `\\{${b}\\}`).equal, set(a) === set(b), `{${a}} {${b}}`);
    }),
    { numRuns: 500 },
  );
  fc.assert(
    fc.property(
      fc.integer({ min: -50, max: 0 }),
      fc.integer({ min: 1, max: 50 }),
      fc.constantFrom('[', '('),
      fc.constantFrom(']', ')'),
      fc.constantFrom('[', '('),
      fc.constantFrom(']', ')'),
      (low, high, open, close, open2, close2) => {
        const { equal } = compareAnswers(`${open}${low},${high}${close}`, `${open2}${low},${high}${close2}`);
        assert.equal(equal, open === open2 && close === close2);
      },
    ),
  );
});

test('names that every JavaScript object has are words like others', () => {
  const names = ['constructor', 'toString', '__proto__', 'valueOf', 'hasOwnProperty', '__defineGetter__'];
  const forms = [
    '5 $',
    '\\$',
    '\\$ 5',
    '5_{$}',
    '\\text{$}',
    '\\operatorname{$}(5)',
    'x \\$ 5',
    '\\hat{$}',
    '10 $ 5',
    '5/$',
  ];
  for (const name of names) {
    for (const form of forms) {
      const text = form.replace('$', () => name);
      const other = form.replace('$', () => 'apple');
      for (const gold of ['6', 'x', '6 cm', other]) {
        for (const [a, b] of [
          [text, gold],
          [gold, text],
        ] as const) {
          const { equal } = compareAnswers(a, b);
          // Neither is a unit that is known: a number of apples is a number.
          assert.ok(!equal || (gold === other && form.includes('5')), `${a} = ${b}`);
        }
      }
    }
  }
});
