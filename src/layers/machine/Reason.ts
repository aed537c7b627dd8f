/**
 * Why the machine refused.
 */
import type { PlatformError } from "effect"

/** The operating system's own words, such as `ENOSPC: no space left on device, write`. */
export const reasonOf = (error: PlatformError.PlatformError): string =>
  error.reason.cause instanceof Error ? error.reason.cause.message : error.message
