// Why: how a route's answers and bodies stand in the OpenAPI document, and how a long one is sent, said once.
// Trusts: the schemas of shared/wire. Must never: describe what a route does not do.

import type { z } from '@hono/zod-openapi';

export const json = <S extends z.ZodType>(schema: S, description: string) => ({
  description,
  content: { 'application/json': { schema } },
});

export const body = <S extends z.ZodType>(schema: S) => ({
  body: { required: true, content: { 'application/json': { schema } } },
});

/** Pulled chunk by chunk: a client that reads slowly makes nothing wait but itself. */
export function streamed(chunks: AsyncGenerator<Uint8Array>): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = await chunks.next();
      if (next.done === true) controller.close();
      else controller.enqueue(next.value);
    },
    async cancel() {
      await chunks.return(undefined);
    },
  });
}
