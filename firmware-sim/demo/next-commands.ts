// Why: what a newcomer can type next, with the real addresses and paths of the fleet that is up.
// Trusts: its caller. Must never: print the token itself; a path tells where it is.

export interface NextCommands {
  registry: string;
  tokenFile: string;
  folder: string;
  model: string;
  stations: { id: string; agentUrl: string; stateFolder: string }[];
  rollouts: string[];
}

/** Lines to paste into a second terminal, in the project's folder. */
export function nextCommands(known: NextCommands): string {
  const [station] = known.stations;
  const served = known.model.split('/')[1] ?? known.model;
  const rollout = known.rollouts.at(-1);
  return [
    '',
    'Everything stays up. In a second terminal, in this folder:',
    '',
    `  export LEPTON_REGISTRY=${known.registry}`,
    `  export LEPTON_TOKEN=$(cat ${known.tokenFile})`,
    `  export LEPTON_KEYS=${known.folder}/config/lepton/keys   # the publisher's key of this demo`,
    '',
    '  npx lepton devices list',
    ...(station === undefined ? [] : [`  npx lepton devices show ${station.id}`]),
    ...(rollout === undefined ? [] : [`  npx lepton rollout status ${rollout}`]),
    `  npx lepton models show ${known.model}`,
    '  npx lepton telemetry query --class app --since 10m --limit 5',
    '  npx lepton events',
    ...(station === undefined
      ? []
      : [
          `  npx lepton-agent status --state ${station.stateFolder}`,
          `  curl ${station.agentUrl}/v2/models/${served}`,
        ]),
    '',
    `Logs are in ${known.folder}/logs. Ctrl-C stops everything and removes ${known.folder}.`,
  ].join('\n');
}
