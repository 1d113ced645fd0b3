variable "aws_region" {
  description = "AWS region of every resource"
  type        = string
  default     = "us-east-1"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2,}(-[a-z]+)+-[0-9]+$", var.aws_region))
    error_message = "aws_region must be the code of a region, for example eu-central-1."
  }
}

variable "environment" {
  description = "Environment in names and tags; a named workspace uses its own name instead. Lower-case letters, digits, inner hyphens"
  type        = string
  default     = "dev"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", terraform.workspace == "default" ? var.environment : terraform.workspace))
    error_message = "environment, or the named workspace that stands for it, must be lower-case letters, digits and inner hyphens, for example dev."
  }
}

variable "project_name" {
  description = "First part of every name. Lower-case letters, digits, inner hyphens; at most 51 characters together with the environment"
  type        = string
  default     = "file-metadata"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", var.project_name)) && length(var.project_name) <= 50
    error_message = "project_name must be 1 to 50 lower-case letters, digits and inner hyphens, for example file-metadata (a dot would break TLS to the bucket)."
  }

  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
  validation {
    condition     = !can(regex("^(xn--|sthree-|amzn-s3-demo-)", var.project_name))
    error_message = "project_name must not begin with xn--, sthree- or amzn-s3-demo-: S3 reserves bucket names that do."
  }

  # S3 allows 63 characters, Lambda and IAM 64, and SQS 80. The role of batch_backfill has six more.
  validation {
    condition     = length("${var.project_name}-${local.environment}-") <= (var.batch_backfill ? 48 : 53)
    error_message = "The names would begin with \"${var.project_name}-${local.environment}-\", which may be at most ${var.batch_backfill ? "48 characters with batch_backfill" : "53 characters"}; it has ${length("${var.project_name}-${local.environment}-")}. Choose a shorter project_name or environment."
  }
}

variable "lambda_runtime" {
  description = "Node runtime of the function; nodejs24.x needs a newer aws provider: see docs/OPERATE.md"
  type        = string
  default     = "nodejs22.x"
  nullable    = false

  validation {
    condition     = contains(["nodejs22.x", "nodejs24.x"], var.lambda_runtime)
    error_message = "lambda_runtime must be nodejs22.x or nodejs24.x."
  }
}

variable "lambda_memory_mb" {
  description = "Memory of the function in MB, 128 to 10240"
  type        = number
  default     = 256
  nullable    = false

  validation {
    condition     = var.lambda_memory_mb >= 128 && var.lambda_memory_mb <= 10240 && floor(var.lambda_memory_mb) == var.lambda_memory_mb
    error_message = "lambda_memory_mb must be a whole number from 128 to 10240."
  }
}

variable "lambda_timeout_seconds" {
  description = "Time limit of one run in seconds, 10 to 900; a run starts no new object in its last 2 seconds"
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.lambda_timeout_seconds >= 10 && var.lambda_timeout_seconds <= 900 && floor(var.lambda_timeout_seconds) == var.lambda_timeout_seconds
    error_message = "lambda_timeout_seconds must be a whole number from 10 to 900."
  }
}

variable "reserved_concurrency" {
  description = "Most runs at the same time, 1 or more, to cap a runaway bill; -1 for no cap. New accounts can't reserve any"
  type        = number
  default     = -1
  nullable    = false

  validation {
    condition     = (var.reserved_concurrency == -1 || var.reserved_concurrency >= 1) && floor(var.reserved_concurrency) == var.reserved_concurrency
    error_message = "reserved_concurrency must be -1 (no cap) or a whole number of 1 or more: with 0 the function would never run."
  }
}

variable "tracing_mode" {
  description = "X-Ray tracing: PassThrough (free) or Active (adds two X-Ray permissions and a price per trace)"
  type        = string
  default     = "PassThrough"
  nullable    = false

  validation {
    condition     = contains(["PassThrough", "Active"], var.tracing_mode)
    error_message = "tracing_mode must be PassThrough or Active."
  }
}

variable "warm_up" {
  description = "Whether a starting function opens its connections by an unsigned request each to S3 and DynamoDB, which refuse it"
  type        = bool
  default     = true
  nullable    = false
}

variable "record_removals" {
  description = "Whether a deletion, also one by the bucket's lifecycle, is one more row of its key (docs/OPERATE.md)"
  type        = bool
  default     = false
  nullable    = false
}

variable "existing_bucket" {
  description = "Name of an existing bucket in this account and region, which stays as it is (docs/OPERATE.md); noncurrent_days, force_destroy and access_log_bucket then do nothing. null for a bucket of the stack's own"
  type        = string
  default     = null

  validation {
    condition     = var.existing_bucket == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.existing_bucket))
    error_message = "existing_bucket must be the name of a bucket, not its ARN or URL."
  }
}

variable "existing_bucket_kms_key_arn" {
  description = "ARN of the KMS key that encrypts existing_bucket, by which the function may decrypt objects; null for none"
  type        = string
  default     = null

  validation {
    condition     = var.existing_bucket_kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.existing_bucket_kms_key_arn))
    error_message = "existing_bucket_kms_key_arn must be the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias or an ID."
  }

  validation {
    condition     = var.existing_bucket_kms_key_arn == null || var.existing_bucket != null
    error_message = "existing_bucket_kms_key_arn is for existing_bucket: set both, or kms_key_arn for a bucket of the stack's own."
  }
}

variable "filter_prefixes" {
  description = "Only keys that begin with one of these plain texts trigger the function, for example [\"incoming/\"]; [] for all"
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for i, a in var.filter_prefixes : a != "" && alltrue([for j, b in var.filter_prefixes : i == j || !startswith(b, a)])])
    error_message = "filter_prefixes must hold no empty text ([] lets every key through), and none that begins with another${join("", flatten([for i, a in var.filter_prefixes : [for j, b in var.filter_prefixes : " (\"${b}\" begins with \"${a}\")" if i != j && startswith(b, a)]]))}. S3 refuses such: \"Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules if the prefixes are overlapping for the same event type.\""
  }
}

variable "filter_suffixes" {
  description = "Only keys that end with one of these plain texts trigger the function, for example [\".csv\"]; [] for all"
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for i, a in var.filter_suffixes : a != "" && alltrue([for j, b in var.filter_suffixes : i == j || !endswith(b, a)])])
    error_message = "filter_suffixes must hold no empty text ([] lets every key through), and none that ends with another${join("", flatten([for i, a in var.filter_suffixes : [for j, b in var.filter_suffixes : " (\"${b}\" ends with \"${a}\")" if i != j && endswith(b, a)]]))}. S3 refuses such: \"Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules if the prefixes are overlapping for the same event type.\""
  }
}

# The old name of a list would otherwise let every key through: of a variable that is not declared
# Terraform says nothing, or warns at most.
variable "filter_prefix" {
  description = "The old name of filter_prefixes, which is refused"
  default     = null

  validation {
    condition     = var.filter_prefix == null
    error_message = "filter_prefix is a list now: set filter_prefixes = ${jsonencode(compact([var.filter_prefix]))} instead."
  }
}

variable "filter_suffix" {
  description = "The old name of filter_suffixes, which is refused"
  default     = null

  validation {
    condition     = var.filter_suffix == null
    error_message = "filter_suffix is a list now: set filter_suffixes = ${jsonencode(compact([var.filter_suffix]))} instead."
  }
}

variable "table_stream" {
  description = "Whether the table has a stream of its new rows, for a next step: see docs/OPERATE.md"
  type        = bool
  default     = false
  nullable    = false
}

variable "log_retention_days" {
  description = "Days to keep the function's log"
  type        = number
  default     = 14
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one of the values that CloudWatch Logs allows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "noncurrent_days" {
  description = "Days to keep a replaced or deleted version of an object, 1 or more"
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.noncurrent_days >= 1 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days must be a whole number of 1 or more."
  }
}

variable "force_destroy" {
  description = "Whether destroy may delete a bucket that still holds objects"
  type        = bool
  default     = true
  nullable    = false
}

variable "point_in_time_recovery" {
  description = "Whether the table can be restored to any second of the last 35 days; AWS keeps a backup for 35 days after the table is deleted"
  type        = bool
  default     = false
  nullable    = false
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the table; destroy then fails until this is false again"
  type        = bool
  default     = false
  nullable    = false
}

variable "kms_key_arn" {
  description = "ARN of an existing KMS key for the bucket, table, queue, log and function's environment; null for keys that AWS owns"
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias or an ID."
  }
}

variable "access_log_bucket" {
  description = "Name of an existing bucket for S3 access logs; null for none"
  type        = string
  default     = null
}

variable "alarm_topic_arn" {
  description = "ARN of an existing SNS topic that the alarms notify; null for none"
  type        = string
  default     = null

  validation {
    condition     = var.alarm_topic_arn == null || can(regex("^arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:.+$", var.alarm_topic_arn))
    error_message = "alarm_topic_arn must be the ARN of an SNS topic (arn:aws:sns:REGION:ACCOUNT:NAME)."
  }
}

variable "permissions_boundary_arn" {
  description = "ARN of an existing policy to be the permissions boundary of the function's role; null for none"
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn must be the ARN of a policy (arn:aws:iam::ACCOUNT:policy/NAME)."
  }
}

variable "batch_backfill" {
  description = "Whether deno task backfill --batch may make jobs of S3 Batch Operations: adds a role for them"
  type        = bool
  default     = false
  nullable    = false
}
