// Why: how a route's answers and bodies stand in the OpenAPI document, said once.
// Trusts: the schemas of shared/wire. Must never: describe what a route does not do.

import type { z } from '@hono/zod-openapi';

export const json = <S extends z.ZodType>(schema: S, description: string) => ({
  description,
  content: { 'application/json': { schema } },
});

export const body = <S extends z.ZodType>(schema: S) => ({
  body: { required: true, content: { 'application/json': { schema } } },
});
