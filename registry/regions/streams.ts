// Why: everything that goes from region to region beside the catalogue is a numbered list at its source, pulled by the other
// end, which keeps its place in the same commit as what it took: nothing is lost or taken twice, whatever is cut off.
// Trusts: nothing of what a peer sends before its `take` checked it. Must never: be read without the policy's yes.

import type { FlowClass } from '../policy/flows.ts';
import type { RegistryDb } from '../store/open.ts';

export interface StreamItem {
  /** Only rises within one list; gaps are legal. */
  id: number;
  /** JSON. */
  body: unknown;
}

/** A list that this region offers to its peers. */
export interface OutgoingStream {
  /** `[a-z0-9-]+`, part of the path under which it is pulled. */
  name: string;
  /** Asked of the policy for each pull, with the peer's name as the destination. */
  flow: FlowClass;
  /** What is behind `after` for that peer, oldest first, `limit` items at most. */
  readIn(db: RegistryDb, peer: string, after: number, limit: number): StreamItem[];
}

/** A list of each peer that this region takes. */
export interface IncomingStream {
  name: string;
  /**
   * Takes items of a peer in the transaction in which its place moves on. An item that was taken before (the peer was restored
   * from a backup and counts anew) changes nothing. What is wrong with an item is noted and passed over; a throw keeps the place.
   */
  takeIn(db: RegistryDb, peer: string, items: readonly StreamItem[]): void;
  /** After the commit. */
  taken?(peer: string): void;
}
