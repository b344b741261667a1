// Why: one page at `/` that shows a person at the device what runs and why, without a registry.
// Trusts: the status and the host's counters; every text in them is escaped. Must never: change anything,
// load anything from elsewhere, or hold a key, a token or a payload.

import { createHash } from 'node:crypto';
import { quantileBound } from '../../shared/stats/histogram.ts';
import type { ServedModel } from '../inference/host.ts';
import type { AgentStatus } from '../status.ts';
import type { AgentFacts } from './metrics.ts';
import { type PageLanguage, type PageText, pageLanguages } from './page-text.ts';

export { pageLanguage } from './page-text.ts';

const entities: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Text that is markup already; everything else is escaped where it is put into a template. */
class Markup {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

type Part = string | number | Markup | Part[];

function render(part: Part): string {
  if (part instanceof Markup) return part.text;
  if (Array.isArray(part)) return part.map(render).join('');
  return String(part).replace(/[&<>"']/g, (sign) => entities[sign] ?? sign);
}

function html(strings: TemplateStringsArray, ...parts: Part[]): Markup {
  return new Markup(strings.map((text, index) => text + render(parts[index] ?? '')).join(''));
}

const style = `
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--good:#1a7f37;--bad:#c0392b;--busy:#9a6700}
@media (prefers-color-scheme:dark){:root{--good:#57c774;--bad:#ff8a7a;--busy:#e3b341}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans","Noto Sans CJK SC","PingFang SC","Microsoft YaHei",sans-serif;margin:0 auto;max-width:72rem;padding:1rem}
h1{font-size:1.3rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .5rem}
header{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:baseline;justify-content:space-between}
nav a{margin-left:.75rem}
code{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;font-size:.92em;overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:.25rem 1.5rem;margin:.75rem 0 0}
.facts div{border-top:1px solid var(--line);padding:.3rem 0;min-width:0}
dt,.label{font-size:.82rem;opacity:.75}dl,dd{margin:0}
.model{border:1px solid var(--line);border-radius:.5rem;padding:.75rem 1rem;margin:.5rem 0;background:var(--soft)}
.model h3{margin:0;font-size:1rem;display:flex;flex-wrap:wrap;gap:.25rem .75rem;align-items:baseline}
.badge{font-size:.8rem;font-weight:600;padding:0 .5rem;border:1px solid currentColor;border-radius:1rem;white-space:nowrap}
.good{color:var(--good)}.bad{color:var(--bad)}.busy{color:var(--busy)}
.why{margin:.4rem 0 0;overflow-wrap:anywhere}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .75rem .3rem 0;border-top:1px solid var(--line);vertical-align:top}
th{font-size:.82rem;font-weight:600;opacity:.75}
footer{margin-top:1.5rem;font-size:.82rem;opacity:.75}
`;

/** No script, nothing from elsewhere; the one style sheet by its digest. */
export const pageSecurityPolicy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;

const mebibytes = (bytes: number): string => `${(bytes / 1_048_576).toFixed(1)} MiB`;
const time = (ms: number): Markup => {
  const iso = new Date(ms).toISOString();
  return html`<time datetime="${iso}">${iso.replace('T', ' ').slice(0, 19)} UTC</time>`;
};
const fact = (label: string, value: Part): Markup => html`<div><dt>${label}</dt><dd>${value}</dd></div>`;

function latency(model: ServedModel): string {
  const bound = (fraction: number): string => {
    const ms = quantileBound(model.counters.total, fraction);
    if (ms === null) return '–';
    return ms === Number.POSITIVE_INFINITY ? '> 60 s' : `≤ ${ms} ms`;
  };
  return `p50 ${bound(0.5)}, p95 ${bound(0.95)}`;
}

function serving(model: ServedModel, text: PageText): Part {
  const { counters, restarts, memory } = model;
  const again = Object.values(restarts).reduce((sum, count) => sum + count, 0);
  const limit = memory.limitBytes === null ? '' : ` ${text.of} ${mebibytes(memory.limitBytes)}`;
  const resident = memory.rssBytes === null ? '' : `${mebibytes(memory.rssBytes)}${limit}, `;
  return html`<dl class="facts">${[
    fact(text.requests, [
      `${counters.answered} ${text.answered}, ${counters.failed} ${text.failed}, ${model.waiting} ${text.waiting}`,
      [...counters.failures].map(([code, count]) => html`<br><code>${code}</code> × ${count}`),
    ]),
    fact(text.latency, latency(model)),
    fact(text.process, `${resident}${again} ${text.restarts}, ${text.provider} ${model.provider}`),
  ]}</dl>`;
}

function tone(state: AgentStatus['models'][number]['state'], failed: boolean): string {
  if (failed || state === 'rolling-back') return 'bad';
  return state === 'committed' || state === 'idle' ? 'good' : 'busy';
}

function card(model: AgentStatus['models'][number], served: ServedModel | undefined, text: PageText): Markup {
  const { reason, probe, progress } = model;
  const ready = served?.ready === true;
  const trouble = served?.reason ?? null;
  const why: Part[] = [];
  const target = model.target !== null && model.target !== model.active ? model.target : null;
  if (target !== null) why.push(html`${text.target} <code>${target}</code>`);
  if (model.candidate !== null && model.candidate !== target)
    why.push(html`${text.candidate} <code>${model.candidate}</code>`);
  if (progress !== null && progress.totalBytes > 0)
    why.push(`${mebibytes(progress.doneBytes)} ${text.of} ${mebibytes(progress.totalBytes)}`);
  if (model.rolloutId !== null) why.push(html`${text.rollout} <code>${model.rolloutId}</code>`);
  if (model.lastGood !== null && model.lastGood !== model.active)
    why.push(html`${text.lastGood} <code>${model.lastGood}</code>`);
  if (probe !== null && probe.goldenCases > 0)
    why.push(`${probe.goldenPassed} ${text.of} ${probe.goldenCases} ${text.golden}`);
  if (reason !== null) why.push(html`<span class="bad"><code>${reason.code}</code> ${reason.detail}</span>`);
  if (trouble !== null)
    why.push(html`<span class="bad"><code>${trouble.code}</code> ${trouble.detail}</span>`);
  const spaced = why.map((part, index) => (index === 0 ? part : [' · ', part]));
  return html`<section class="model">
<h3><code>${model.name}</code><span class="badge ${tone(model.state, reason !== null)}">${text.states[model.state]}</span><span class="badge ${ready ? 'good' : 'bad'}">${ready ? text.ready : text.notReady}</span></h3>
<p class="why"><span class="label">${text.release}</span> <code>${model.active ?? text.nothing}</code></p>
${why.length === 0 ? '' : html`<p class="why"><span class="label">${text.why}</span> ${spaced}</p>`}
${served === undefined ? '' : serving(served, text)}
</section>`;
}

function refusalTable(refusals: AgentStatus['refusals'], text: PageText): Markup {
  if (refusals.length === 0) return html`<p>${text.noRefusals}</p>`;
  const rows = refusals
    .slice(-20)
    .reverse()
    .map(
      ({ atMs, code, detail, attack }) =>
        html`<tr><td>${time(atMs)}</td><td><code>${code}</code>${attack ? html` <span class="badge bad">${text.attack}</span>` : ''}</td><td>${detail}</td></tr>`,
    );
  return html`<div class="scroll"><table><thead><tr><th>${text.when}</th><th>${text.code}</th><th>${text.detail}</th></tr></thead><tbody>${rows}</tbody></table></div>`;
}

function deviceFacts({ status, rssBytes, loopDelay }: AgentFacts, text: PageText): Markup {
  const { clock, certificate, agent } = status;
  const line = status.connected
    ? html`<span class="good">${text.connected}</span>`
    : html`<span class="busy">${text.offline}</span>`;
  const held = (loopDelay.quantiles['0.99'] ?? 0) * 1_000;
  return html`<dl class="facts">${[
    fact(text.device, status.device === null ? text.notEnrolled : html`<code>${status.device}</code>`),
    fact(text.region, [
      status.region ?? text.nothing,
      ' · ',
      line,
      status.refusedBy === null
        ? ''
        : html` <span class="bad">${text.refusedBy}: <code>${status.refusedBy}</code></span>`,
    ]),
    fact(text.version, `${agent.version}, ONNX Runtime ${agent.runtime}, ${agent.arch}`),
    fact(text.up, status.startedAtMs === null ? text.nothing : time(status.startedAtMs)),
    fact(text.memory, mebibytes(rssBytes)),
    fact(text.loopDelay, `p99 ${held.toFixed(1)} ms`),
    fact(text.clock, [
      clock.nowMs === null ? '' : [time(clock.nowMs), ', '],
      clock.source === 'signed' ? text.clockSigned : text.clockWall,
    ]),
    fact(text.certificate, certificate === null ? text.nothing : time(certificate.expiresAtMs)),
    ...Object.entries(status.labels).map(([name, value]) => fact(name, value)),
  ]}</dl>`;
}

function telemetryFacts(status: AgentStatus, text: PageText): Markup {
  const { outbox, telemetryOff } = status;
  const off =
    telemetryOff === null ? '' : html`<p class="busy">${text.telemetryOff}: <code>${telemetryOff}</code></p>`;
  if (outbox === null) return html`${off}`;
  return html`${off}<p>${outbox.producedRecords} ${text.produced}, ${outbox.acknowledgedRecords} ${text.acknowledged}, ${outbox.droppedRecords} ${text.dropped}; ${outbox.pendingBatches} ${text.pending}; ${mebibytes(outbox.bytes)}</p>`;
}

/** The whole page as UTF-8; it asks for itself again every five seconds. */
export function agentPage(facts: AgentFacts, language: PageLanguage, nowMs: number): Uint8Array {
  const { status, models } = facts;
  const text = pageLanguages[language];
  const cards = status.models.map((model) =>
    card(
      model,
      models.find(({ as }) => as === model.name),
      text,
    ),
  );
  const page = html`<!doctype html>
<html lang="${language === 'zh' ? 'zh-CN' : 'en'}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><meta http-equiv="refresh" content="5">
<title>${text.title} ${status.device?.slice(0, 12) ?? ''}</title><style>${new Markup(style)}</style></head>
<body>
<header><h1>Lepton Fleet · ${text.title}</h1><nav><a href="?lang=en" lang="en" hreflang="en">English</a><a href="?lang=zh" lang="zh-CN" hreflang="zh">中文</a></nav></header>
${deviceFacts(facts, text)}
<main>
<h2>${text.models}</h2>
${cards.length === 0 ? html`<p>${text.noModels}</p>` : cards}
<h2>${text.telemetry}</h2>
${telemetryFacts(status, text)}
<h2>${text.refusals}</h2>
${refusalTable(status.refusals, text)}
</main>
<footer>${text.updated} ${time(nowMs)} · <a href="/status">/status</a> · <a href="/metrics">/metrics</a> · <a href="/v2/repository/index">/v2/repository/index</a></footer>
</body></html>
`;
  return Buffer.from(page.text, 'utf8');
}
