// Why: the language this process speaks to the person who started it.
// Trusts: nothing. Must never: load a catalogue: a process that speaks English, and the agent's daemon, carry none.

import { english, type Speaker } from '../wire/languages.ts';

let current: Speaker = english;

export function speakAs(speaker: Speaker): void {
  current = speaker;
}

export function speaker(): Speaker {
  return current;
}
