// Why: `/metrics` and the page `/`: the same facts for a scraper and for a person.
// Trusts: the status and the host. Must never: change anything.

import type { IncomingMessage } from 'node:http';
import { prometheusContentType } from '../../shared/wire/prometheus.ts';
import type { Answer, RouteParts } from './answer.ts';
import { type AgentFacts, agentMetrics } from './metrics.ts';

async function facts(parts: RouteParts): Promise<AgentFacts> {
  return {
    models: parts.inference.models(),
    status: await parts.status(),
    rssBytes: process.memoryUsage.rss(),
    loopDelay: parts.loopDelay.read(),
  };
}

export async function metrics(parts: RouteParts): Promise<Answer> {
  const text = agentMetrics(await facts(parts));
  return {
    status: 200,
    body: Buffer.from(text, 'utf8'),
    headers: { 'content-type': prometheusContentType },
  };
}

export async function page(request: IncomingMessage, parts: RouteParts): Promise<Answer> {
  // Loaded when somebody looks: few devices are ever looked at.
  const { agentPage, pageLanguage, pageSecurityPolicy } = await import('./page.ts');
  const query = new URLSearchParams((request.url ?? '').split('?')[1] ?? '').get('lang');
  const language = pageLanguage(query, request.headers['accept-language']);
  return {
    status: 200,
    body: agentPage(await facts(parts), language, parts.clock.wall()),
    headers: {
      'content-type': 'text/html; charset=utf-8',
      'content-language': language,
      'content-security-policy': pageSecurityPolicy,
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      vary: 'accept-language',
    },
  };
}
