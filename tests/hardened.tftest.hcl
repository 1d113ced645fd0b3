# Each opt-in of docs/SECURITY.md at work: all of hardened.tfvars, on resources that are mocked.
#
#   terraform test -filter=tests/hardened.tftest.hcl -var-file=docs/hardened.tfvars

mock_provider "aws" { source = "./tests" }

run "each_opt_in_has_its_effect" {
  assert {
    condition = jsonencode(one(aws_s3_bucket_server_side_encryption_configuration.uploads[0].rule)) == jsonencode({
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
    condition     = [for log in aws_s3_bucket_logging.uploads : [log.target_bucket, log.target_prefix]] == [[var.access_log_bucket, "${local.name}/"]]
    error_message = "access_log_bucket does not get the bucket's access log, under the bucket's name."
  }

  assert {
    condition = alltrue([
      one(aws_lambda_function.metadata.tracing_config).mode == var.tracing_mode,
      aws_lambda_function.metadata.reserved_concurrent_executions == var.reserved_concurrency,
      one(aws_dynamodb_table.files.point_in_time_recovery).enabled == var.point_in_time_recovery,
      aws_dynamodb_table.files.deletion_protection_enabled == var.deletion_protection,
      aws_s3_bucket.uploads[0].force_destroy == var.force_destroy,
      aws_cloudwatch_log_group.function.retention_in_days == var.log_retention_days,
      aws_iam_role.function.permissions_boundary == var.permissions_boundary_arn,
    ])
    error_message = "An opt-in has no effect."
  }

  assert {
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.function) : alarm.alarm_actions == toset([var.alarm_topic_arn]) && alarm.ok_actions == toset([var.alarm_topic_arn])])
    error_message = "An alarm does not notify alarm_topic_arn when it begins and when it ends."
  }
}

run "the_opt_ins_add_to_the_role_one_key_and_traces" {
  assert {
    condition = jsonencode(slice(jsondecode(aws_iam_role_policy.function.policy).Statement, 5, length(jsondecode(aws_iam_role_policy.function.policy).Statement))) == jsonencode([
      {
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Condition = { StringEquals = { "kms:ViaService" = [for service in ["s3", "dynamodb", "sqs"] : "${service}.us-east-1.amazonaws.com"] } }
        Effect    = "Allow"
        Resource  = var.kms_key_arn
        Sid       = "UseGivenKey"
      },
      { Action = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"], Effect = "Allow", Resource = "*", Sid = "Trace" },
    ])
    error_message = "Not just kms_key_arn through S3, DynamoDB and SQS, and X-Ray."
  }
}
