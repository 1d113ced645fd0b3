output "s3_bucket_name" {
  description = "Bucket to upload to: the stack's own, or existing_bucket"
  value       = local.bucket
}

output "s3_bucket_arn" {
  description = "ARN of the bucket"
  value       = local.bucket_arn
}

output "dynamodb_table_name" {
  description = "Table with a row for each created object"
  value       = aws_dynamodb_table.files.name
}

output "dynamodb_table_arn" {
  description = "ARN of the table"
  value       = aws_dynamodb_table.files.arn
}

output "table_stream_arn" {
  description = "ARN of the table's stream, if table_stream is true"
  value       = var.table_stream ? aws_dynamodb_table.files.stream_arn : null
}

output "failure_queue_url" {
  description = "URL of the failure queue, which keeps the events that failed three times"
  value       = aws_sqs_queue.failures.url
}

output "failure_queue_arn" {
  description = "ARN of the failure queue"
  value       = aws_sqs_queue.failures.arn
}

output "log_group_name" {
  description = "Log group of the function"
  value       = aws_cloudwatch_log_group.function.name
}

output "lambda_function_name" {
  description = "Function that writes the rows"
  value       = aws_lambda_function.metadata.function_name
}

output "lambda_function_arn" {
  description = "ARN of the function"
  value       = aws_lambda_function.metadata.arn
}

output "filter_prefixes" {
  description = "Beginnings of the keys that are recorded; empty for all"
  value       = var.filter_prefixes
}

output "filter_suffixes" {
  description = "Ends of the keys that are recorded; empty for all"
  value       = var.filter_suffixes
}

output "environment" {
  description = "Environment of this stack"
  value       = local.environment
}

output "account_id" {
  description = "AWS account of this stack"
  value       = local.account_id
}

output "aws_region" {
  description = "AWS region of this stack"
  value       = terraform_data.stack.input.region
}

output "batch_role_arn" {
  description = "ARN of the role of jobs of S3 Batch Operations, if batch_backfill is true"
  value       = one(aws_iam_role.batch[*].arn)
}

output "existing_bucket" {
  description = "The bucket, if it is not the stack's own"
  value       = var.existing_bucket
}

# --- An existing bucket's notification, which Terraform does not touch: what to add to it ---

locals {
  # In the words of S3. The ids begin with the stack's name, as the bucket may have entries of any name.
  entries = [for i, entry in local.notifications : merge({
    Id                = "${local.name}-${i}"
    LambdaFunctionArn = aws_lambda_function.metadata.arn
    Events            = entry.events
    }, [for rules in [[
      for rule in [{ Name = "Prefix", Value = entry.filter_prefix }, { Name = "Suffix", Value = entry.filter_suffix }] :
      rule if rule.Value != ""
  ]] : { Filter = { Key = { FilterRules = rules } } } if length(rules) > 0]...)]

  # Commands that keep all other entries. `others` and what a command adds are JMESPath, which the aws CLI
  # evaluates.
  others       = "LambdaFunctionConfigurations[?LambdaFunctionArn != `${jsonencode(aws_lambda_function.metadata.arn)}`] || `[]`"
  notification = "bucket-notification-configuration --region ${terraform_data.stack.input.region} --bucket ${local.bucket}"
  notify = {
    for action, entries in { add = jsonencode(local.entries), remove = "[]" } : action =>
    "aws s3api get-${local.notification} --output json --query 'merge(@, {LambdaFunctionConfigurations: [${local.others}, `${entries}`][]})' > notification.json && aws s3api put-${local.notification} --notification-configuration file://notification.json"
  }
}

output "notification_json" {
  description = "Entries that existing_bucket's notification needs, in the words of S3"
  value       = var.existing_bucket == null ? null : jsonencode(local.entries)
}

output "notification_hcl" {
  description = "The same for an aws_s3_bucket_notification of yours"
  value = var.existing_bucket == null ? null : join("", [for i, entry in local.notifications : <<-EOT
    lambda_function {
      id                  = "${local.name}-${i}"
      lambda_function_arn = "${aws_lambda_function.metadata.arn}"
      events              = ${jsonencode(entry.events)}
      filter_prefix       = "${entry.filter_prefix}"
      filter_suffix       = "${entry.filter_suffix}"
    }
  EOT
  ])
}

output "notification_add" {
  description = "Command that adds them to existing_bucket, and keeps all other entries"
  value       = var.existing_bucket == null ? null : local.notify.add
}

output "notification_remove" {
  description = "Command that takes them out of existing_bucket again"
  value       = var.existing_bucket == null ? null : local.notify.remove
}
