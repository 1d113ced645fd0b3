terraform {
  required_version = ">= 1.9.0"

  # 6.22 to 6.39 change the bucket's encryption at every apply: docs/OPERATE.md says how to move to 6.40.
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

# Credentials come from a role (docs/SECURITY.md). The region is the one that the state keeps, so even a
# destroy with another aws_region finds the stack.
provider "aws" {
  region = terraform_data.stack.input.region

  default_tags {
    tags = {
      Project     = var.project_name
      Environment = local.environment
      ManagedBy   = "terraform"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  # A named workspace is its own environment, so one state never turns into another environment.
  environment = terraform.workspace == "default" ? var.environment : terraform.workspace
  name_prefix = "${var.project_name}-${local.environment}-"

  # Every name comes from this one, which the state keeps: see Identity, below.
  name = terraform_data.stack.input.name

  # Not by the bucket itself: an import has to know it while the state lacks the bucket.
  own_buckets = var.existing_bucket == null ? 1 : 0

  # The stack's own bucket, or the one that existing_bucket names. The ARN is known even while a deleted
  # bucket is created again.
  bucket     = coalesce(var.existing_bucket, one(aws_s3_bucket.uploads[*].bucket))
  bucket_arn = "arn:${data.aws_partition.current.partition}:s3:::${local.bucket}"

  account_id = data.aws_caller_identity.current.account_id
  zip_path   = "${path.module}/build/lambda.zip"
}

# --- Bucket: private, encrypted, versioned, TLS only; or an existing one, which stays as it is ---

# Lets a plan fail where there is no such bucket.
data "aws_s3_bucket" "existing" {
  count  = var.existing_bucket == null ? 0 : 1
  bucket = var.existing_bucket
}

resource "aws_s3_bucket" "uploads" {
  count         = local.own_buckets
  bucket        = local.name
  force_destroy = var.force_destroy

  # A new name would replace the bucket and lose its data: it keeps its name even if the identity is lost.
  lifecycle { ignore_changes = [bucket] }
}

resource "aws_s3_bucket_public_access_block" "uploads" {
  count                   = local.own_buckets
  bucket                  = aws_s3_bucket.uploads[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "uploads" {
  count  = local.own_buckets
  bucket = aws_s3_bucket.uploads[0].id
  rule { object_ownership = "BucketOwnerEnforced" }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "uploads" {
  count  = local.own_buckets
  bucket = aws_s3_bucket.uploads[0].id

  rule {
    bucket_key_enabled = var.kms_key_arn != null
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

# With versions the function reads the bytes that its event is about, however late it runs.
resource "aws_s3_bucket_versioning" "uploads" {
  count  = local.own_buckets
  bucket = aws_s3_bucket.uploads[0].id
  versioning_configuration { status = "Enabled" }
}

# Limits what old versions and unfinished multipart uploads cost; a current object never expires.
resource "aws_s3_bucket_lifecycle_configuration" "uploads" {
  count  = local.own_buckets
  bucket = aws_s3_bucket.uploads[0].id

  rule {
    id     = "expire-leftovers"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload { days_after_initiation = 7 }
    noncurrent_version_expiration { noncurrent_days = var.noncurrent_days }
    expiration { expired_object_delete_marker = true }
  }

  depends_on = [aws_s3_bucket_versioning.uploads]
}

resource "aws_s3_bucket_policy" "uploads" {
  count  = local.own_buckets
  bucket = aws_s3_bucket.uploads[0].id
  policy = jsonencode({ Version = "2012-10-17", Statement = [{
    Sid       = "DenyPlainHttp"
    Effect    = "Deny"
    Principal = "*"
    Action    = "s3:*"
    Resource  = [local.bucket_arn, "${local.bucket_arn}/*"]
    Condition = { Bool = { "aws:SecureTransport" = "false" } }
  }] })

  # S3 refuses two changes to a bucket's access at the same time.
  depends_on = [aws_s3_bucket_public_access_block.uploads]
}

resource "aws_s3_bucket_logging" "uploads" {
  count         = var.access_log_bucket == null ? 0 : local.own_buckets
  bucket        = aws_s3_bucket.uploads[0].id
  target_bucket = var.access_log_bucket
  target_prefix = "${local.bucket}/"
}

# --- Table: a row for each created object, found by key and ordered by time ---

resource "aws_dynamodb_table" "files" {
  name                        = local.name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "file_key"
  range_key                   = "timestamp"
  deletion_protection_enabled = var.deletion_protection
  stream_enabled              = var.table_stream
  stream_view_type            = var.table_stream ? "NEW_IMAGE" : null

  attribute {
    name = "file_key"
    type = "S"
  }

  attribute {
    name = "timestamp"
    type = "S"
  }

  point_in_time_recovery { enabled = var.point_in_time_recovery }

  # Without kms_key_arn the table is encrypted too, with a key that AWS owns.
  server_side_encryption {
    enabled     = var.kms_key_arn != null
    kms_key_arn = var.kms_key_arn
  }

  lifecycle { ignore_changes = [name] } # as the bucket's
}

# --- Failure queue: keeps the events that failed three times, so none is lost silently ---

resource "aws_sqs_queue" "failures" {
  name                      = "${local.name}-failures"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = var.kms_key_arn == null ? true : null
  kms_master_key_id         = var.kms_key_arn

  lifecycle { ignore_changes = [name] } # as the bucket's
}

# --- Log: made here so that destroy removes it; the function's role cannot recreate it ---

resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${local.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

# --- Role: what the function may do, and on which resources ---

resource "aws_iam_role" "function" {
  name                 = local.name
  description          = "Reads uploads in ${local.name} and writes their metadata"
  permissions_boundary = var.permissions_boundary_arn
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [
    { Sid = "LetLambdaRunIt", Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "lambda.amazonaws.com" } },
  ] })
}

resource "aws_iam_role_policy" "function" {
  name = "metadata"
  role = aws_iam_role.function.id
  policy = jsonencode({ Version = "2012-10-17", Statement = concat(
    [
      {
        Sid       = "ReadUploads"
        Effect    = "Allow"
        Action    = ["s3:GetObject", "s3:GetObjectVersion"]
        Resource  = "${local.bucket_arn}/*"
        Condition = { StringEquals = { "aws:ResourceAccount" = local.account_id } }
      },
      # Without it S3 answers 403 for a missing object, just as for a forbidden one.
      {
        Sid       = "TellMissingFromForbidden"
        Effect    = "Allow"
        Action    = "s3:ListBucket"
        Resource  = local.bucket_arn
        Condition = { StringEquals = { "aws:ResourceAccount" = local.account_id } }
      },
      # The last two are for a late event, which may find a backfill's row of its version, and for a
      # backfill, which may find an event's.
      {
        Sid      = "WriteRows"
        Effect   = "Allow"
        Action   = ["dynamodb:PutItem", "dynamodb:Query", "dynamodb:DeleteItem"]
        Resource = aws_dynamodb_table.files.arn
      },
      {
        Sid      = "WriteOwnLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.function.arn}:*"
      },
      { Sid = "SendFailedEvents", Effect = "Allow", Action = "sqs:SendMessage", Resource = aws_sqs_queue.failures.arn },
    ],
    # S3 and DynamoDB decrypt with the key; sending to SQS also needs a data key.
    [for key in var.kms_key_arn[*] : {
      Sid      = "UseGivenKey"
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource = key
      Condition = { StringEquals = {
        "kms:ViaService" = [for service in ["s3", "dynamodb", "sqs"] : "${service}.${terraform_data.stack.input.region}.${data.aws_partition.current.dns_suffix}"]
      } }
    }],
    [for key in var.existing_bucket_kms_key_arn[*] : {
      Sid       = "DecryptUploads"
      Effect    = "Allow"
      Action    = "kms:Decrypt"
      Resource  = key
      Condition = { StringEquals = { "kms:ViaService" = "s3.${terraform_data.stack.input.region}.${data.aws_partition.current.dns_suffix}" } }
    }],
    # X-Ray has no narrower resource.
    [for all in var.tracing_mode == "Active" ? ["*"] : [] : {
      Sid      = "Trace"
      Effect   = "Allow"
      Action   = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
      Resource = all
    }],
  ) })
}

# Lambda decrypts the function's environment by a grant to the role that the function was created with.
# A role that is created again under the same name has no grant, and every run would fail with
# KMSAccessDeniedException, so the function is replaced too:
# https://repost.aws/knowledge-center/lambda-kmsaccessdeniedexception-errors
resource "terraform_data" "function_role" {
  input = aws_iam_role.function.unique_id
}

# --- Function: reads an object and writes its row ---

resource "aws_lambda_function" "metadata" {
  function_name    = local.name
  description      = "Stores the metadata of each object created in ${local.name}"
  role             = aws_iam_role.function.arn
  filename         = local.zip_path
  source_code_hash = try(filebase64sha256(local.zip_path), null)
  # Not in handler.ts: importing the AWS SDK reads the environment, which a plain deno test may not.
  handler                        = "lambda.handler"
  runtime                        = var.lambda_runtime
  architectures                  = ["arm64"]
  memory_size                    = var.lambda_memory_mb
  timeout                        = var.lambda_timeout_seconds
  reserved_concurrent_executions = var.reserved_concurrency
  kms_key_arn                    = var.kms_key_arn

  environment {
    variables = {
      BUCKET_NAME     = local.bucket
      TABLE_NAME      = aws_dynamodb_table.files.name
      WARM_UP         = var.warm_up ? "on" : "off"
      RECORD_REMOVALS = var.record_removals ? "on" : "off"

      # Empty for an existing bucket: its versions were enabled before, if at all.
      STACK_CREATED = var.existing_bucket == null ? terraform_data.stack.input.created : ""

      # A young generation of 6 MB, as a larger one would only fill with garbage. Lambda sets no limit of
      # the heap where NODE_OPTIONS has one, so its own stands here too: 90 % of the memory.
      NODE_OPTIONS = "--max-semi-space-size=2 --max-old-space-size=${floor(var.lambda_memory_mb * 9 / 10)}"
    }
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.function.name
  }

  tracing_config { mode = var.tracing_mode }

  lifecycle {
    # Not the role: for Terraform only its update or replacement is a trigger, not its creation.
    replace_triggered_by = [terraform_data.function_role]

    precondition {
      condition     = fileexists(local.zip_path)
      error_message = "The function's code build/lambda.zip is not built yet: run deno task build (deploy does so itself)."
    }
  }

  # The first event must find every permission in place.
  depends_on = [aws_iam_role_policy.function]
}

resource "aws_lambda_function_event_invoke_config" "metadata" {
  function_name                = aws_lambda_function.metadata.function_name
  maximum_retry_attempts       = 2
  maximum_event_age_in_seconds = 21600

  destination_config {
    on_failure { destination = aws_sqs_queue.failures.arn }
  }

  lifecycle { replace_triggered_by = [terraform_data.function_role] } # it goes with the function

  # Lambda checks at creation that the role may send to the queue.
  depends_on = [aws_iam_role_policy.function]
}

# --- Trigger: the bucket invokes the function for each created object ---

resource "aws_lambda_permission" "uploads" {
  statement_id  = "AllowUploadsBucket"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.metadata.function_name
  principal     = "s3.amazonaws.com"
  source_arn    = local.bucket_arn
  # A bucket's ARN names no account: without this the next owner of a deleted bucket's name could call.
  source_account = local.account_id

  lifecycle { replace_triggered_by = [terraform_data.function_role] } # it goes with the function
}

locals {
  # Each prefix with each suffix, for example incoming/*.csv. S3 compares with the form-encoded key, in
  # which a slash stays as it is.
  filters = [
    for pair in setproduct(coalescelist(var.filter_prefixes, [""]), coalescelist(var.filter_suffixes, [""])) :
    join("*", [for text in pair : replace(urlencode(text), "%2F", "/")])
  ]

  # An existing bucket may have no versions: there its lifecycle deletes the object itself. A version's
  # expiration is not recorded.
  removals = concat(
    ["s3:ObjectRemoved:*", "s3:LifecycleExpiration:DeleteMarkerCreated"],
    var.existing_bucket == null ? [] : ["s3:LifecycleExpiration:Delete"],
  )

  # The entries of the bucket's notification. S3's console allows an id 255 characters.
  notifications = [for filter in local.filters : {
    id            = filter == "*" ? "object-created" : "object-created:${length(filter) <= 240 ? filter : sha256(filter)}"
    events        = concat(["s3:ObjectCreated:*"], var.record_removals ? local.removals : [])
    filter_prefix = split("*", filter)[0]
    filter_suffix = split("*", filter)[1]
  }]
}

# Not for an existing bucket: it would take the place of all the triggers that the bucket has.
resource "aws_s3_bucket_notification" "uploads" {
  count  = local.own_buckets
  bucket = aws_s3_bucket.uploads[0].id

  dynamic "lambda_function" {
    for_each = local.notifications

    content {
      id                  = lambda_function.value.id
      lambda_function_arn = aws_lambda_function.metadata.arn
      events              = lambda_function.value.events
      filter_prefix       = lambda_function.value.filter_prefix
      filter_suffix       = lambda_function.value.filter_suffix
    }
  }

  # So that an upload right after creation may invoke the function, and has a queue to fail to.
  depends_on = [aws_lambda_permission.uploads, aws_lambda_function_event_invoke_config.metadata]
}

# --- Alarms: one for each way in which an upload could go unrecorded ---

# None for AsyncEventsDropped, which also counts every event that Lambda sends to the failure queue.
resource "aws_cloudwatch_metric_alarm" "function" {
  for_each = {
    failures-waiting     = { of = "SQS", metric = "ApproximateNumberOfMessagesVisible", means = "Events that failed three times wait in the failure queue ${aws_sqs_queue.failures.name}" }
    errors               = { of = "Lambda", metric = "Errors", means = "The function ended with an error: its log names the objects" }
    undelivered-failures = { of = "Lambda", metric = "DestinationDeliveryFailures", means = "Lambda could not send a failed event to the failure queue: the event is lost" }
  }

  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = each.value.means
  namespace           = "AWS/${each.value.of}"
  metric_name         = each.value.metric
  dimensions          = each.value.of == "SQS" ? { QueueName = aws_sqs_queue.failures.name } : { FunctionName = aws_lambda_function.metadata.function_name }
  statistic           = each.value.of == "SQS" ? "Maximum" : "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arn[*]
  ok_actions          = var.alarm_topic_arn[*]
}

moved {
  from = aws_cloudwatch_metric_alarm.failures_waiting
  to   = aws_cloudwatch_metric_alarm.function["failures-waiting"]
}

# --- Batch backfill, opt-in: what a job of S3 Batch Operations may do ---

resource "aws_iam_role" "batch" {
  count                = var.batch_backfill ? 1 : 0
  name                 = "${local.name}-batch"
  permissions_boundary = var.permissions_boundary_arn
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [
    { Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "batchoperations.s3.amazonaws.com" }, Condition = { StringEqualsIfExists = { "aws:SourceAccount" = local.account_id } } },
  ] })
}

resource "aws_iam_role_policy" "batch" {
  count = var.batch_backfill ? 1 : 0
  name  = "batch"
  role  = aws_iam_role.batch[0].id
  policy = jsonencode({ Version = "2012-10-17", Statement = [
    { Sid = "ListUploads", Effect = "Allow", Action = "s3:PutInventoryConfiguration", Resource = local.bucket_arn },
    { Sid = "InvokeFunction", Effect = "Allow", Action = "lambda:InvokeFunction", Resource = aws_lambda_function.metadata.arn },
  ] })
}

# --- Identity: the stack's name, region and age, which the state keeps ---

# Set by the first apply and never changed, whatever happens to variables or to other resources.
# Another region or prefix is refused before anything is touched: with it Terraform would look for the
# stack elsewhere.
resource "terraform_data" "stack" {
  input = {
    region  = var.aws_region
    prefix  = local.name_prefix
    name    = "${local.name_prefix}${substr(sha256(uuid()), 0, 10)}"
    created = timestamp()
    bucket  = var.existing_bucket
  }

  lifecycle {
    ignore_changes = [input]

    # https://docs.aws.amazon.com/general/latest/gr/s3.html
    precondition {
      condition     = length(local.notifications) <= 100
      error_message = "filter_prefixes and filter_suffixes make ${length(local.notifications)} pairs, and S3 takes 100 entries in a bucket's notification at most: leave some out."
    }

    postcondition {
      condition     = self.input.region == var.aws_region
      error_message = "This state's stack is in ${self.input.region}, not in ${var.aws_region}. Set aws_region to ${self.input.region}, or deploy another environment to ${var.aws_region}, with --env NAME."
    }

    postcondition {
      condition     = self.input.prefix == local.name_prefix
      error_message = "This state holds the stack \"${trimsuffix(self.input.prefix, "-")}\", not \"${trimsuffix(local.name_prefix, "-")}\". Set project_name and environment back, or give the other stack a state of its own, with --env NAME."
    }

    # A state of an earlier main.tf has no such field, and a bucket of its own.
    postcondition {
      condition     = try(self.input.bucket, null) == var.existing_bucket
      error_message = "This state's stack records ${try(coalesce(self.input.bucket), "a bucket of its own")}, not ${coalesce(var.existing_bucket, "a bucket of its own")}: rows would be mixed, or objects lost. Set existing_bucket to ${jsonencode(try(self.input.bucket, null))} again, or deploy another environment, with --env NAME."
    }

    postcondition {
      condition     = can(self.input.name)
      error_message = "This state was made by an earlier main.tf, whose stacks this one cannot update without replacing the bucket and the table. Run terraform destroy, or deploy another environment, with --env NAME."
    }
  }
}
