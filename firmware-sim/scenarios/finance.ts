// Why: the scenario of a lender: card accounts with what was known when each was opened, and whether it defaulted.
// Trusts: nothing. Must never: leak the outcome into what is known at the opening.
//
// The risk is not a plain sum: the same debt weighs more on a small income, a card matters once it is nearly
// drawn to its limit, and who does not state an income is a little riskier than who does.

import { createNoise, type Noise } from '../sensors/noise.ts';
import type { Cell, Scenario } from './scenario.ts';
import { between, clamp, logistic, pick, round } from './signals.ts';

const employments = { permanent: 58, temporary: 16, 'self-employed': 13, retired: 9, unemployed: 4 };
const housings = { rent: 46, own: 38, family: 16 };
const purposes = { car: 30, home: 22, debts: 20, education: 8, other: 20 };

/** Of the natural logarithm of the yearly income. */
const incomeCentre: Record<string, number> = {
  permanent: 10.5,
  temporary: 10.1,
  retired: 9.9,
  unemployed: 9.3,
};
const selfEmployedCentre = 10.4;
const unstatedIncome = 0.08;
const unstatedHousing = 0.02;

function application(noise: Noise): Cell[] {
  const employment = pick(noise, employments);
  const housing = pick(noise, housings);
  const purpose = pick(noise, purposes);
  const age =
    employment === 'retired'
      ? clamp(Math.round(68 + 5 * noise.normal()), 58, 88)
      : clamp(Math.round(39 + 11 * noise.normal()), 18, 66);
  const spread = employment === 'self-employed' ? 0.6 : 0.38;
  const income = clamp(
    Math.exp((incomeCentre[employment] ?? selfEmployedCentre) + 0.006 * (age - 39) + spread * noise.normal()),
    6_000,
    400_000,
  );
  const amount = clamp(Math.exp(8.9 + 0.35 * (Math.log(income) - 10.3) + 0.6 * noise.normal()), 500, 90_000);
  const months = [12, 24, 36, 48, 60][Math.floor(5 * noise.uniform())] ?? 36;
  const strain = noise.normal();
  const utilisation = logistic(-0.7 + 1.1 * strain + 0.7 * noise.normal());
  const late = Math.min(9, Math.floor(Math.exp(-0.7 + 0.8 * strain + 0.7 * noise.normal())));
  const loans = Math.min(8, Math.floor(-2.2 * Math.log(1 - noise.uniform())));
  const history = Math.floor(between(noise, 0, 12 * clamp(age - 17, 1, 25)));
  const incomeIsStated = noise.uniform() >= unstatedIncome;
  const housingIsStated = noise.uniform() >= unstatedHousing;

  // Part of the income that the instalments take.
  const burden = (12 * amount) / months / income;
  const risk =
    -3.4 +
    3.2 * Math.min(burden, 1.2) +
    2.4 * Math.max(0, utilisation - 0.55) * 2 +
    0.5 * late +
    0.12 * loans -
    0.5 * Math.log1p(history / 24) +
    (employment === 'unemployed' ? 1 : employment === 'temporary' ? 0.5 : 0) +
    (employment === 'self-employed' && purpose === 'debts' ? 0.9 : 0) +
    (housing === 'own' ? -0.5 : 0) +
    (incomeIsStated ? 0 : 0.5) +
    (age < 25 ? 0.4 : 0);
  const defaulted = noise.uniform() < logistic(1.5 * risk + 2.95);
  return [
    age,
    incomeIsStated ? round(income, -2) : null,
    employment,
    housingIsStated ? housing : null,
    purpose,
    round(amount, -1),
    months,
    loans,
    round(utilisation, 3),
    late,
    history,
    defaulted ? 'yes' : 'no',
  ];
}

export const finance: Scenario = {
  name: 'finance',
  title: 'Credit default',
  titleZh: '信贷违约预测',
  about:
    'Card accounts as a lender sees them on the day they are opened: age, stated income (missing for 8 % of them), ' +
    'employment, housing, what the money is for, and the record of earlier loans. Predicted is whether the account ' +
    'defaults within a year; one in five does. A default that is missed costs most of the amount lent, a good ' +
    'customer refused costs the interest and, refused without a reason, a complaint.',
  task: 'classification',
  recipe: {
    target: 'defaulted',
    task: 'classification',
    outliers: 'clip',
    hidden: [32, 16],
    learningRate: 0.003,
    epochs: 40,
    patience: 8,
    classWeights: 'none',
  },
  columns: [
    'age',
    'income_eur',
    'employment',
    'housing',
    'purpose',
    'amount_eur',
    'months',
    'other_loans',
    'card_utilisation',
    'late_payments',
    'history_months',
    'defaulted',
  ],
  texts: ['employment', 'housing', 'purpose'],
  rows: 6_000,
  naive: { about: 'nobody defaults, which is right for four accounts of five', answer: () => 'no' },
  positive: 'yes',
  source: (seed) => {
    const noise = createNoise(seed);
    return { next: () => application(noise) };
  },
};
