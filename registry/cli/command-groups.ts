// Why: a command loads its own code alone: loading all of it is the longest part of most commands' run.
// Trusts: the first word, to say what is loaded and nothing else. Must never: leave a command out of the help.

import type { Command } from 'commander';

type Add = (program: Command) => void;

export interface CommandGroup {
  /** The first words that need this group. */
  names: readonly string[];
  load(): Promise<readonly Add[]>;
}

/** In the order of the help. */
export const commandGroups: readonly CommandGroup[] = [
  { names: ['serve'], load: async () => [(await import('./serve-command.ts')).addServeCommand] },
  { names: ['train'], load: async () => [(await import('./train-command.ts')).addTrainCommand] },
  { names: ['evaluate'], load: async () => [(await import('./evaluate-command.ts')).addEvaluateCommand] },
  { names: ['profile'], load: async () => [(await import('./profile-command.ts')).addProfileCommand] },
  { names: ['models'], load: async () => [(await import('./model-commands.ts')).addModelCommands] },
  { names: ['rollout'], load: async () => [(await import('./rollout-commands.ts')).addRolloutCommands] },
  { names: ['groups'], load: async () => [(await import('./group-commands.ts')).addGroupCommands] },
  {
    names: ['devices', 'events'],
    load: async () => [(await import('./device-commands.ts')).addDeviceCommands],
  },
  {
    names: ['authorities', 'broker'],
    load: async () => [(await import('./authority-commands.ts')).addAuthorityCommands],
  },
  { names: ['backup'], load: async () => [(await import('./backup-commands.ts')).addBackupCommands] },
  {
    names: ['telemetry'],
    load: async () => [(await import('./telemetry-commands.ts')).addTelemetryCommands],
  },
  { names: ['audit'], load: async () => [(await import('./audit-commands.ts')).addAuditCommands] },
  { names: ['masking'], load: async () => [(await import('./masking-commands.ts')).addMaskingCommands] },
  { names: ['policy'], load: async () => [(await import('./policy-commands.ts')).addPolicyCommands] },
  { names: ['report'], load: async () => [(await import('./report-commands.ts')).addReportCommands] },
  { names: ['regions'], load: async () => [(await import('./region-commands.ts')).addRegionCommands] },
  { names: ['webhooks'], load: async () => [(await import('./webhook-commands.ts')).addWebhookCommands] },
  { names: ['drift'], load: async () => [(await import('./evidence-commands.ts')).addEvidenceCommands] },
  {
    names: ['labels', 'quality'],
    load: async () => [(await import('./quality-commands.ts')).addQualityCommands],
  },
  { names: ['energy'], load: async () => [(await import('./energy-commands.ts')).addEnergyCommand] },
  { names: ['cells'], load: async () => [(await import('./cell-commands.ts')).addCellCommands] },
  { names: ['samples'], load: async () => [(await import('./sample-commands.ts')).addSampleCommands] },
  { names: ['rights'], load: async () => [(await import('./rights-commands.ts')).addRightsCommands] },
  {
    names: ['claims', 'publishers', 'tokens'],
    load: async () => {
      const { addClaimCommands, addPublisherCommands, addTokenCommands } = await import(
        './access-commands.ts'
      );
      return [addClaimCommands, addPublisherCommands, addTokenCommands];
    },
  },
  { names: ['keys'], load: async () => [(await import('./key-commands.ts')).addKeyCommands] },
];

/** The command that was asked for, or every one where the first word names none: help, a mistake, a flag's value. */
export async function addCommands(program: Command, words: readonly string[]): Promise<void> {
  if (words.length === 1 && (words[0] === '--version' || words[0] === '-V')) return;
  const first = words.find((word) => !word.startsWith('-'));
  const asked = commandGroups.filter(({ names }) => first !== undefined && names.includes(first));
  for (const { load } of asked.length > 0 ? asked : commandGroups)
    for (const add of await load()) add(program);
}
