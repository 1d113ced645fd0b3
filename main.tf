terraform {
  required_version = ">= 1.9.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 7.0.0"
    }
  }
}

# Credentials come from the EC2 instance's role: nothing but the region is set, and that is the one of
# the state, so that even a destroy with another aws_region finds the stack.
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
  # A named workspace is its environment, so that one state never turns into another environment.
  environment   = terraform.workspace == "default" ? var.environment : terraform.workspace
  bucket_prefix = "${var.project_name}-${local.environment}-"

  # The bucket's generated name is unique in the world. Every other name derives from it, so two
  # stacks with the same variables in one account share nothing. 63 characters at most: the
  # function's and the role's limit is 64, the queue's 80.
  stack = aws_s3_bucket.uploads.id

  account_id = data.aws_caller_identity.current.account_id
  zip_path   = "${path.module}/build/lambda.zip"
}

# What this state was first applied as. Everything depends on it: with another value Terraform would
# look for the stack elsewhere, or replace its bucket and data, so it is refused before anything.
resource "terraform_data" "stack" {
  input = {
    region = var.aws_region
    prefix = local.bucket_prefix
  }

  lifecycle {
    ignore_changes = [input]

    precondition {
      condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", local.environment)) && length(local.bucket_prefix) <= 37
      error_message = "The environment \"${local.environment}\" (var.environment or, in a named workspace, the workspace) must be lower-case letters, digits and inner hyphens, and \"${local.bucket_prefix}\" (project, environment and two hyphens) at most 37 characters; it has ${length(local.bucket_prefix)}."
    }

    postcondition {
      condition     = self.input.region == var.aws_region
      error_message = "This state's stack is in ${self.input.region}, not in ${var.aws_region}. Set aws_region to ${self.input.region}; to move the stack, destroy it there first, or deploy another environment."
    }

    postcondition {
      condition     = self.input.prefix == local.bucket_prefix
      error_message = "This state holds the stack \"${trimsuffix(self.input.prefix, "-")}\", not \"${trimsuffix(local.bucket_prefix, "-")}\", which would replace its bucket and data. Give the other one a state of its own (a workspace: deno task deploy --env NAME), or destroy this stack first."
    }
  }
}

# The bucket: private, encrypted, versioned, TLS only.
resource "aws_s3_bucket" "uploads" {
  bucket_prefix = terraform_data.stack.input.prefix
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_public_access_block" "uploads" {
  bucket                  = aws_s3_bucket.uploads.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "uploads" {
  bucket = aws_s3_bucket.uploads.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "uploads" {
  bucket = aws_s3_bucket.uploads.id

  rule {
    bucket_key_enabled = var.kms_key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

# With versions the function reads the very bytes its event is about, however late it runs.
resource "aws_s3_bucket_versioning" "uploads" {
  bucket = aws_s3_bucket.uploads.id

  versioning_configuration {
    status = "Enabled"
  }
}

# Bounds what versioning and broken uploads cost; a current object is never expired.
resource "aws_s3_bucket_lifecycle_configuration" "uploads" {
  bucket = aws_s3_bucket.uploads.id

  rule {
    id     = "expire-leftovers"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  depends_on = [aws_s3_bucket_versioning.uploads]
}

data "aws_iam_policy_document" "uploads" {
  statement {
    sid       = "DenyPlainHttp"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.uploads.arn, "${aws_s3_bucket.uploads.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "uploads" {
  bucket = aws_s3_bucket.uploads.id
  policy = data.aws_iam_policy_document.uploads.json

  # S3 refuses two changes of one bucket's access at the same time.
  depends_on = [aws_s3_bucket_public_access_block.uploads]
}

resource "aws_s3_bucket_logging" "uploads" {
  count = var.access_log_bucket == null ? 0 : 1

  bucket        = aws_s3_bucket.uploads.id
  target_bucket = var.access_log_bucket
  target_prefix = "${local.stack}/"
}

# The rows: one a created object, found by key and ordered by time.
resource "aws_dynamodb_table" "files" {
  name                        = local.stack
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "file_key"
  range_key                   = "timestamp"
  deletion_protection_enabled = var.deletion_protection

  attribute {
    name = "file_key"
    type = "S"
  }

  attribute {
    name = "timestamp"
    type = "S"
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }

  # Without a given key the table is encrypted all the same, with a key that AWS owns.
  server_side_encryption {
    enabled     = var.kms_key_arn != null
    kms_key_arn = var.kms_key_arn
  }
}

# Where an event goes that failed three times: nothing is lost in silence.
resource "aws_sqs_queue" "failures" {
  name                              = "${local.stack}-failures"
  message_retention_seconds         = 1209600
  sqs_managed_sse_enabled           = var.kms_key_arn == null ? true : null
  kms_master_key_id                 = var.kms_key_arn
  kms_data_key_reuse_period_seconds = 300
}

# Owned here so that destroy removes it; the role may not make it again.
resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${local.stack}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

# The function's role: what it needs, where it needs it.
data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "LetLambdaRunIt"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "function" {
  name                 = local.stack
  description          = "Reads uploads in ${local.stack} and writes their metadata"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = var.permissions_boundary_arn
}

data "aws_iam_policy_document" "function" {
  statement {
    sid       = "ReadUploads"
    actions   = ["s3:GetObject", "s3:GetObjectVersion"]
    resources = ["${aws_s3_bucket.uploads.arn}/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceAccount"
      values   = [local.account_id]
    }
  }

  # Without it S3 answers 403 for an object that is gone, as for one that may not be read.
  statement {
    sid       = "TellGoneFromForbidden"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.uploads.arn]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceAccount"
      values   = [local.account_id]
    }
  }

  statement {
    sid       = "WriteRows"
    actions   = ["dynamodb:PutItem"]
    resources = [aws_dynamodb_table.files.arn]
  }

  statement {
    sid       = "WriteOwnLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function.arn}:*"]
  }

  statement {
    sid       = "ParkFailedEvents"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.failures.arn]
  }

  # S3 and DynamoDB decrypt with it; SQS also asks for a data key to send.
  dynamic "statement" {
    for_each = var.kms_key_arn[*]

    content {
      sid       = "UseGivenKey"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [for service in ["s3", "dynamodb", "sqs"] : "${service}.${terraform_data.stack.input.region}.${data.aws_partition.current.dns_suffix}"]
      }
    }
  }

  # X-Ray knows no narrower resource.
  dynamic "statement" {
    for_each = var.tracing_mode == "Active" ? ["*"] : []

    content {
      sid       = "Trace"
      actions   = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role_policy" "function" {
  name   = "metadata"
  role   = aws_iam_role.function.id
  policy = data.aws_iam_policy_document.function.json
}

resource "aws_lambda_function" "metadata" {
  function_name                  = local.stack
  description                    = "Stores the metadata of each object created in ${local.stack}"
  role                           = aws_iam_role.function.arn
  filename                       = local.zip_path
  source_code_hash               = try(filebase64sha256(local.zip_path), null)
  handler                        = "lambda.handler"
  runtime                        = var.lambda_runtime
  architectures                  = ["arm64"]
  memory_size                    = var.lambda_memory_mb
  timeout                        = var.lambda_timeout_seconds
  reserved_concurrent_executions = var.reserved_concurrency
  kms_key_arn                    = var.kms_key_arn

  environment {
    variables = {
      BUCKET_NAME = aws_s3_bucket.uploads.id
      TABLE_NAME  = aws_dynamodb_table.files.name

      # In place of the limits that the runtime itself gives V8: young objects have 6 MB and not 24
      # or more, as no event keeps many. It costs no start-up time that the runtime's flags don't.
      NODE_OPTIONS = "--max-semi-space-size=2"
    }
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.function.name
  }

  tracing_config {
    mode = var.tracing_mode
  }

  lifecycle {
    precondition {
      condition     = fileexists(local.zip_path)
      error_message = "The function's code build/lambda.zip is not built yet: run deno task build (deno task deploy does it itself)."
    }
  }

  # The first event must find every right in place.
  depends_on = [aws_iam_role_policy.function]
}

resource "aws_lambda_function_event_invoke_config" "metadata" {
  function_name                = aws_lambda_function.metadata.function_name
  maximum_retry_attempts       = 2
  maximum_event_age_in_seconds = 21600

  destination_config {
    on_failure {
      destination = aws_sqs_queue.failures.arn
    }
  }

  # Lambda checks at creation that the role may send there.
  depends_on = [aws_iam_role_policy.function]
}

# A bucket's ARN names no account: without source_account the next owner of a freed name could call.
resource "aws_lambda_permission" "uploads" {
  statement_id   = "AllowUploadsBucket"
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.metadata.function_name
  principal      = "s3.amazonaws.com"
  source_arn     = aws_s3_bucket.uploads.arn
  source_account = local.account_id
}

resource "aws_s3_bucket_notification" "uploads" {
  bucket = aws_s3_bucket.uploads.id

  lambda_function {
    id                  = "object-created"
    lambda_function_arn = aws_lambda_function.metadata.arn
    events              = ["s3:ObjectCreated:*"]

    # S3 compares with the form-encoded key, in which the slash stays.
    filter_prefix = var.filter_prefix == "" ? null : replace(urlencode(var.filter_prefix), "%2F", "/")
    filter_suffix = var.filter_suffix == "" ? null : replace(urlencode(var.filter_suffix), "%2F", "/")
  }

  # An upload right after creation is neither refused by Lambda nor lost to a missing destination.
  depends_on = [
    aws_lambda_permission.uploads,
    aws_lambda_function_event_invoke_config.metadata,
  ]
}

# Each alarm stands for one way in which an upload could go unrecorded.
resource "aws_cloudwatch_metric_alarm" "failures_waiting" {
  alarm_name          = "${local.stack}-failures-waiting"
  alarm_description   = "Events that failed three times wait in the failure queue ${aws_sqs_queue.failures.name}"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.failures.name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arn[*]
  ok_actions          = var.alarm_topic_arn[*]
}

resource "aws_cloudwatch_metric_alarm" "function" {
  for_each = {
    errors = {
      metric_name = "Errors"
      description = "The function ended with an error: its log names the objects"
    }
    undelivered-failures = {
      metric_name = "DestinationDeliveryFailures"
      description = "Lambda could not park a failed event in the failure queue: the event is lost"
    }
    dropped-events = {
      metric_name = "AsyncEventsDropped"
      description = "Lambda dropped events without running the function"
    }
  }

  alarm_name          = "${local.stack}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/Lambda"
  metric_name         = each.value.metric_name
  dimensions          = { FunctionName = aws_lambda_function.metadata.function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arn[*]
  ok_actions          = var.alarm_topic_arn[*]
}
