# The opt-ins at work: each check that docs/SECURITY.md says is opt-in is asserted here, and an
# assertion's message begins with the ids of its checks. Needs the values of hardened.tfvars:
#
#   terraform test -var-file=docs/hardened.tfvars
#
# Mocked, as main.tftest.hcl is; the same command runs that file too, with the defaults.

mock_provider "aws" {
  source = "./tests"
}

override_data {
  target = data.aws_iam_policy_document.function
  values = { json = "{\"Id\":\"function\"}" }
}

override_data {
  target = data.aws_iam_policy_document.trust
  values = { json = "{\"Id\":\"trust\"}" }
}

override_data {
  target = data.aws_iam_policy_document.uploads
  values = { json = "{\"Id\":\"uploads\"}" }
}

# The default, whatever terraform.tfvars says: an older provider knows no newer runtime.
variables {
  lambda_runtime = null
}

run "hardened" {
  command = apply

  # The bucket.
  assert {
    condition = var.kms_key_arn != null && jsonencode(aws_s3_bucket_server_side_encryption_configuration.uploads.rule) == jsonencode([
      {
        apply_server_side_encryption_by_default = [{ kms_master_key_id = var.kms_key_arn, sse_algorithm = "aws:kms" }]
        bucket_key_enabled                      = true
      },
    ])
    error_message = "CKV_AWS_145 AVD-AWS-0132 S3.17: kms_key_arn encrypts the bucket, with a bucket key."
  }

  assert {
    condition = var.access_log_bucket != null && jsonencode([for log in aws_s3_bucket_logging.uploads : [log.bucket, log.target_bucket, log.target_prefix]]) == jsonencode([
      [aws_s3_bucket.uploads.id, var.access_log_bucket, "${aws_s3_bucket.uploads.bucket}/"],
    ])
    error_message = "CKV_AWS_18 S3.9 AVD-AWS-0089: access_log_bucket receives the bucket's access log, under the bucket's name."
  }

  assert {
    condition     = aws_s3_bucket.uploads.force_destroy == false
    error_message = "Destroy: force_destroy = false keeps a bucket that holds objects."
  }

  # The function and its role.
  assert {
    condition     = jsonencode(aws_lambda_function.metadata.tracing_config) == jsonencode([{ mode = "Active" }])
    error_message = "AVD-AWS-0066 Lambda.7: tracing_mode makes tracing Active."
  }

  assert {
    condition     = aws_lambda_function.metadata.reserved_concurrent_executions == var.reserved_concurrency && var.reserved_concurrency >= 1
    error_message = "CKV_AWS_115: reserved_concurrency caps the runs at the same time."
  }

  assert {
    condition     = var.kms_key_arn != null && aws_lambda_function.metadata.kms_key_arn == var.kms_key_arn
    error_message = "CKV_AWS_173: kms_key_arn encrypts the function's environment."
  }

  assert {
    condition     = var.permissions_boundary_arn != null && aws_iam_role.function.permissions_boundary == var.permissions_boundary_arn
    error_message = "Role: permissions_boundary_arn is the role's boundary."
  }

  assert {
    condition = alltrue([
      jsonencode([for s in data.aws_iam_policy_document.function.statement : [s.sid, coalesce(s.effect, "Allow"), s.actions, s.not_actions, s.resources, s.not_resources, s.principals, s.not_principals, s.condition]]) == jsonencode([
        ["ReadUploads", "Allow", ["s3:GetObject", "s3:GetObjectVersion"], null, ["${aws_s3_bucket.uploads.arn}/*"], null, [], [], [{ test = "StringEquals", values = [local.account_id], variable = "aws:ResourceAccount" }]],
        ["TellGoneFromForbidden", "Allow", ["s3:ListBucket"], null, [aws_s3_bucket.uploads.arn], null, [], [], [{ test = "StringEquals", values = [local.account_id], variable = "aws:ResourceAccount" }]],
        ["WriteRows", "Allow", ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Query"], null, [aws_dynamodb_table.files.arn], null, [], [], []],
        ["WriteOwnLogs", "Allow", ["logs:CreateLogStream", "logs:PutLogEvents"], null, ["${aws_cloudwatch_log_group.function.arn}:*"], null, [], [], []],
        ["ParkFailedEvents", "Allow", ["sqs:SendMessage"], null, [aws_sqs_queue.failures.arn], null, [], [], []],
        ["UseGivenKey", "Allow", ["kms:Decrypt", "kms:GenerateDataKey"], null, [var.kms_key_arn], null, [], [], [{ test = "StringEquals", values = [for service in ["s3", "dynamodb", "sqs"] : "${service}.${var.aws_region}.amazonaws.com"], variable = "kms:ViaService" }]],
        ["Trace", "Allow", ["xray:PutTelemetryRecords", "xray:PutTraceSegments"], null, ["*"], null, [], [], []],
      ]),
      aws_iam_role_policy.function.policy == data.aws_iam_policy_document.function.json,
    ])
    error_message = "KMS.1 KMS.2: the opt-ins add to the role the use of kms_key_arn through S3, DynamoDB and SQS, and two X-Ray permissions, and nothing else."
  }

  # The table, the failure queue, the log and the alarms.
  assert {
    condition     = aws_dynamodb_table.files.point_in_time_recovery[0].enabled
    error_message = "CKV_AWS_28 AVD-AWS-0024 DynamoDB.2: point_in_time_recovery is on."
  }

  assert {
    condition = var.kms_key_arn != null && jsonencode(aws_dynamodb_table.files.server_side_encryption) == jsonencode([
      { enabled = true, kms_key_arn = var.kms_key_arn },
    ])
    error_message = "CKV_AWS_119 AVD-AWS-0025: kms_key_arn encrypts the table."
  }

  assert {
    condition     = aws_dynamodb_table.files.deletion_protection_enabled
    error_message = "DynamoDB.6: deletion_protection keeps the table from being deleted."
  }

  assert {
    condition     = var.kms_key_arn != null && aws_sqs_queue.failures.kms_master_key_id == var.kms_key_arn && aws_sqs_queue.failures.sqs_managed_sse_enabled != true
    error_message = "Failures: kms_key_arn encrypts the failure queue in place of SSE-SQS."
  }

  assert {
    condition     = aws_cloudwatch_log_group.function.retention_in_days == var.log_retention_days && var.log_retention_days >= 365
    error_message = "CKV_AWS_338 CloudWatch.16: log_retention_days keeps the function's log for at least a year."
  }

  assert {
    condition     = var.kms_key_arn != null && aws_cloudwatch_log_group.function.kms_key_id == var.kms_key_arn
    error_message = "CKV_AWS_158 AVD-AWS-0017: kms_key_arn encrypts the function's log."
  }

  assert {
    condition = var.alarm_topic_arn != null && alltrue([
      for alarm in concat([aws_cloudwatch_metric_alarm.failures_waiting], values(aws_cloudwatch_metric_alarm.function)) :
      jsonencode([alarm.alarm_actions, alarm.ok_actions]) == jsonencode([[var.alarm_topic_arn], [var.alarm_topic_arn]])
    ])
    error_message = "CloudWatch.15: every alarm notifies alarm_topic_arn when it begins and when it ends."
  }
}
