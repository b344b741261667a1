// Why: holds what the flags of `lepton serve` for delivery mean. Trusts: nothing. Must never: start a registry.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deliveryLimits } from '../../registry/cli/serve.ts';

test('flags of delivery become limits in their units; what is no number is refused', () => {
  assert.deepEqual(deliveryLimits({}), {});
  assert.deepEqual(
    deliveryLimits({ downloadsMax: '10', deviceRateMax: '512', regionRateMax: '2048', deviceRateMin: '0' }),
    {
      downloadsMax: 10,
      deviceBytesPerSecondMax: 524_288,
      regionBytesPerSecondMax: 2_097_152,
      downloadBytesPerSecondMin: 0,
    },
  );
  assert.deepEqual(deliveryLimits({ deltaReleases: '5', deltaSpace: '2' }), {
    encodingReleasesBack: 5,
    encodingsBytesMax: 2_097_152,
  });
  for (const options of [
    { downloadsMax: '0' },
    { deviceRateMax: '1.5' },
    { deltaSpace: '-1' },
    { regionRateMax: '' },
  ])
    assert.throws(() => deliveryLimits(options), { code: 'config-invalid' }, JSON.stringify(options));
});
