// Why: which role may use which route, as a page for people, made from the tables that decide it.
// Trusts: route-table.ts and policy/access.ts. Must never: be written by hand; scripts/access-table.mjs does it.

import { roles } from '../../shared/wire/http.ts';
import { rolesWith } from '../policy/access.ts';
import { type RouteRow, type RouteScope, routeTable } from './route-table.ts';

const scopeWords: Record<RouteScope, string> = {
  path: 'its own',
  content: 'its own',
  fleet: 'denied',
  any: 'allowed',
};

/** `reading` rights are not bound to namespaces; whoever is denied by role is denied whatever the namespace. */
function boundWords({ scope, actions }: RouteRow): string {
  return actions === 'public' ? 'allowed' : scopeWords[scope];
}

const auditWords = (row: RouteRow): string => (row.audited ? 'each request' : 'refusals');

/** Roles that may use a route; every role where it is public. */
export const rolesOf = ({ actions }: RouteRow): readonly string[] =>
  actions === 'public' ? roles : rolesWith(actions);

/** The text of docs/access.md. */
export function accessTable(): string {
  const head = ['Route', 'Audit verb', ...roles, 'no token', 'bound token', 'Audited'];
  const lines = routeTable.map((row) => {
    const allowed = rolesOf(row);
    const cells = [
      `\`${row.method} ${row.path}\``,
      `\`${row.verb}\``,
      ...roles.map((role) => (allowed.includes(role) ? 'allowed' : 'denied')),
      row.actions === 'public' ? 'allowed' : 'denied',
      boundWords(row),
      auditWords(row),
    ];
    return `| ${cells.join(' | ')} |`;
  });
  return `# Who may do what

Made by \`node scripts/access-table.mjs\` from \`registry/api/route-table.ts\` and \`registry/policy/access.ts\`; a test compares
it with both and asks every route with a token of every role.

- *bound token*: what a token of a role that is allowed, but bound to one namespace, may do there: *its own*, only what belongs
  to that namespace; *denied*, since it concerns the whole fleet. Whoever is refused gets \`role-forbidden\` or
  \`namespace-forbidden\` before the request's parameters and body are looked at, except where the namespace stands in them.
- *Audited*: *each request*, whatever came of it; *refusals*, only those of a token, a role or a namespace.
- \`PUT /api/v1/publishers/{namespace}\`: a publisher may take a namespace that is free; changing one is the admin's.
- \`HEAD\` is asked as \`GET\`. \`/healthz\`, \`/readyz\` and \`/metrics\` need no token and stand outside of \`/api\`.

| ${head.join(' | ')} |
|${head.map(() => '---').join('|')}|
${lines.join('\n')}
`;
}
