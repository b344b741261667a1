// Why: what a device may be told to run although nobody may install it any more: nothing is installed by that.
// Pure. Trusts: the device's last report. Must never: let what a publisher took back be gone back to.

/**
 * Whether a barred release may stay with a device: it serves there, or it is the proven one to go back to. The second only of
 * what was lost: that is not taken back, the catalogue in force merely does not name it.
 */
export function mayStay(
  code: string,
  there: { active: string | null; lastGood: string | null } | null | undefined,
  releaseId: string,
): boolean {
  return there?.active === releaseId || (code === 'release-lost' && there?.lastGood === releaseId);
}
