# The opt-ins of docs/SECURITY.md at work: all of hardened.tfvars, planned as in main.tftest.hcl.
#
#   terraform test -filter=tests/hardened.tftest.hcl -var-file=docs/hardened.tfvars

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

mock_provider "aws" {
  alias  = "mock"
  source = "./tests"
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "123456789012" }
}

override_resource {
  target = aws_sqs_queue.failures
  values = { arn = "arn:aws:sqs:us-east-1:123456789012:the-queue" }
}

override_resource {
  target = aws_iam_role.function
  values = { arn = "arn:aws:iam::123456789012:role/the-role" }
}

override_resource {
  target = aws_lambda_function.metadata
  values = { arn = "arn:aws:lambda:us-east-1:123456789012:function:the-function" }
}

run "made" {
  providers = { aws = aws.mock }
}

run "each_opt_in_has_its_effect" {
  command = plan
  plan_options { refresh = false }

  assert {
    condition = jsonencode(one(aws_s3_bucket_server_side_encryption_configuration.uploads.rule)) == jsonencode({
      apply_server_side_encryption_by_default = [{ kms_master_key_id = var.kms_key_arn, sse_algorithm = "aws:kms" }]
      bucket_key_enabled                      = true
    })
    error_message = "The bucket does not encrypt with kms_key_arn and a bucket key."
  }

  assert {
    condition     = jsonencode(aws_dynamodb_table.files.server_side_encryption) == jsonencode([{ enabled = true, kms_key_arn = var.kms_key_arn }])
    error_message = "The table does not encrypt with kms_key_arn."
  }

  assert {
    condition     = alltrue([for key in [aws_sqs_queue.failures.kms_master_key_id, aws_cloudwatch_log_group.function.kms_key_id, aws_lambda_function.metadata.kms_key_arn] : key == var.kms_key_arn])
    error_message = "The failure queue, the log or the function's environment does not encrypt with kms_key_arn."
  }

  assert {
    condition     = alltrue([for log in aws_s3_bucket_logging.uploads : log.target_bucket == var.access_log_bucket && log.target_prefix == "${local.name}/"]) && length(aws_s3_bucket_logging.uploads) == 1
    error_message = "access_log_bucket does not get the bucket's access log, under the bucket's name."
  }

  assert {
    condition = jsonencode([
      one(aws_lambda_function.metadata.tracing_config).mode,
      aws_lambda_function.metadata.reserved_concurrent_executions,
      one(aws_dynamodb_table.files.point_in_time_recovery).enabled,
      aws_dynamodb_table.files.deletion_protection_enabled,
      aws_s3_bucket.uploads.force_destroy,
      aws_cloudwatch_log_group.function.retention_in_days,
      ]) == jsonencode([
      var.tracing_mode,
      var.reserved_concurrency,
      var.point_in_time_recovery,
      var.deletion_protection,
      var.force_destroy,
      var.log_retention_days,
    ])
    error_message = "An opt-in has no effect."
  }

  assert {
    condition     = alltrue([for alarm in concat([aws_cloudwatch_metric_alarm.failures_waiting], values(aws_cloudwatch_metric_alarm.function)) : alarm.alarm_actions == toset([var.alarm_topic_arn]) && alarm.ok_actions == toset([var.alarm_topic_arn])])
    error_message = "An alarm does not notify alarm_topic_arn when it begins and when it ends."
  }
}

run "the_opt_ins_add_to_the_role_one_key_and_traces" {
  command = plan
  plan_options { refresh = false }

  assert {
    condition = jsonencode(slice(jsondecode(aws_iam_role_policy.function.policy).Statement, 5, 7)) == jsonencode([
      {
        Sid       = "UseGivenKey"
        Effect    = "Allow"
        Action    = ["kms:GenerateDataKey", "kms:Decrypt"]
        Resource  = var.kms_key_arn
        Condition = { StringEquals = { "kms:ViaService" = [for service in ["s3", "dynamodb", "sqs"] : "${service}.us-east-1.amazonaws.com"] } }
      },
      { Sid = "Trace", Effect = "Allow", Action = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"], Resource = "*" },
    ])
    error_message = "Not just kms_key_arn through S3, DynamoDB and SQS, and X-Ray."
  }

  assert {
    condition     = length(jsondecode(aws_iam_role_policy.function.policy).Statement) == 7
    error_message = "More is added to the role, or something is taken from it."
  }

  assert {
    condition     = aws_iam_role.function.permissions_boundary == var.permissions_boundary_arn
    error_message = "permissions_boundary_arn is not the role's boundary."
  }
}
