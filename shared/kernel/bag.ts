// Why: a few things that come and go with every request. A Set is the wrong place for them: a table that it has outgrown
// still holds what was in it, and the next table, so that garbage keeps garbage and all of it grows old (megabytes of
// inputs, in an agent under load). Trusts: its owner to keep it small, it is searched from the end.
// Must never: promise an order.

export class Bag<T> {
  readonly #items: T[] = [];

  /** What is in it now; changed by `add` and `delete`. */
  get items(): readonly T[] {
    return this.#items;
  }

  /** The caller knows that it is not there yet. */
  add(item: T): void {
    this.#items.push(item);
  }

  /** Whether it was there. */
  delete(item: T): boolean {
    const items = this.#items;
    const at = items.lastIndexOf(item);
    if (at < 0) return false;
    const last = items.pop();
    if (last !== undefined && at < items.length) items[at] = last;
    return true;
  }

  /** All of it, taken out. */
  clear(): T[] {
    return this.#items.splice(0);
  }
}
