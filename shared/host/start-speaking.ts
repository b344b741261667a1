// Why: makes this process speak the language it was asked for; only then is a catalogue loaded.
// Trusts: its caller. Must never: be called by the agent's daemon before it ends.

import { english, type Language } from '../wire/languages.ts';
import { speakAs } from './speech.ts';

export async function startSpeaking(language: Language): Promise<void> {
  if (language === 'en') speakAs(english);
  else {
    const { speakerFor } = await import('./languages.ts');
    speakAs(speakerFor(language));
  }
}
